from freeprm.training.console import described


def test_a_training_log_is_one_line():
    line = described({"loss": 0.5, "sign_accuracy": 0.75, "margin": 1.0, "epoch": 0.5, "learning_rate": 5e-7})
    assert line == "loss 0.5000  sign accuracy 0.750  margin +1.000  lr 5e-07"


def test_an_evaluation_log_says_that_it_is_one():
    assert described({"eval_loss": 0.5, "eval_runtime": 3.0}) == "dev  loss 0.5000"


def test_a_log_of_nothing_we_show_is_no_line():
    assert described({"train_runtime": 3.0}) == ""


def test_nothing_is_printed_on_stdout(make_trainer, capsys):
    from transformers import PrinterCallback

    from freeprm.training.console import ConsoleCallback

    with ConsoleCallback() as console:
        trainer = make_trainer(max_steps=3, logging_steps=2)
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(console)
        trainer.train()
    printed = capsys.readouterr()
    assert printed.out == ""
    assert [line.split("  ")[0] for line in printed.err.splitlines() if line.startswith("step")] == [
        "step 2/3",
        "step 3/3",
    ]
