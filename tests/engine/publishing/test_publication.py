from engine.publishing.publication import parity_sentence


def test_a_difference_that_is_small_beside_the_training() -> None:
    assert parity_sentence(0.01, 1.6) == (
        "The largest difference of a logit from the model in training was 0.01; training itself "
        "had moved one by 1.6."
    )
    assert parity_sentence(0, 0).endswith("had moved one by 0.")


def test_rounding_as_large_as_the_training_is_admitted() -> None:
    text = parity_sentence(0.02, 0.05)
    assert "was 0.02;" in text and "moved one by 0.05. Rounding the weights changed" in text
    assert text.endswith("the measured scores may not hold for these files.")
