"""The settings that the papers print."""

from training.config import read_config


def test_the_papers_settings_are_as_printed():
    timirec = read_config(None, {"encoder": "timirec"}, "paper")
    assert (timirec.learning_rate, timirec.batch_size, timirec.pretrain_epochs) == (1e-4, 256, 10)
    re4 = read_config(None, {"encoder": "re4"}, "paper")
    assert (re4.learning_rate, re4.weight_decay, re4.negatives) == (0.003, 1e-5, 5000)
    assert (re4.recontrast, re4.reattend, re4.reconstruct) == (0.1, 0.1, 0.1)


def test_the_best_settings_stay_those_that_were_measured():
    timirec = read_config(None, {"encoder": "timirec"})
    assert (timirec.learning_rate, timirec.objective) == (0.001, "target-interest")


def test_causal_transformers_learn_all_positions():
    for encoder in ("sasrec", "transformer"):
        config = read_config(None, {"encoder": encoder})
        assert (config.positions, config.history, config.objective) == ("all", 50, "served-max")
    assert read_config(None, {"encoder": "transformer"}).interests == 1
    assert read_config(None, {"encoder": "sasrec"}).layers == 2, "as Kang and McAuley have it"
    assert read_config(None, {"encoder": "gru4rec"}).positions == "last"
