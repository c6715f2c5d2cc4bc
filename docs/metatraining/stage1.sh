# Goes on with stage one: FOLDER/checkpoints holds stage1.npz as
# checkpoint-00000163.npz.
EV=everyday_network_problems; R2=fully_connected_random_2_class_problems; S=sparse_gradient_problems
nice -n 19 python -m train_scripts.metatrain --preset=scale --start_from=hierarchical_rnn_scaled --output_dir=FOLDER --threads=1 \
 --problems=$EV.0,$EV.5,$EV.7,$EV.8,$EV.9,$EV.10,$EV.11,$EV.13,$EV.14,$EV.15,wide_classifier_problems,$R2.0,$R2.3,$R2.7,softmax_2_class_problems.0,softmax_2_class_problems_noisy.1,${S}_mlp.0,${S}_mlp.1,quadratic_problems_noisy.0,quadratic_problems_noisy.2,bowl_problems.0,bowl_problems.2,$S.0,$S.1,$S.3,$S.5,optimization_test_problems.0,optimization_test_problems.2,optimization_test_problems.5,matmul_problems.1,log_objective_problems.1,norm_problems.0,sum_problems.3,rescale_problems.2 \
 --meta_updates=6000 --meta_learning_rate=3e-4 --eval_every=100 --eval_problems=everyday_validation_problems.1,everyday_validation_problems.3,everyday_validation_problems.4,wide_classifier_validation_problems.1 --eval_steps=400 --checkpoint_every_s=300 --resume
