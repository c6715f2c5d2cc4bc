"""One measured number with its name, unit and settings."""


def row(name, value, unit, higher_is_better, **settings):
    return {
        "name": name,
        "value": value,
        "unit": unit,
        "higher_is_better": higher_is_better,
        "settings": settings,
    }
