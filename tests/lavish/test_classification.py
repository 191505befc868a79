"""Losses and scores where every clip has one class."""

import math

import torch
import torch.nn.functional as F

from lavish.clip_tasks import (
    LOSSES,
    binary_cross_entropy_of_softmax,
    cross_entropy,
    top_k_accuracy,
)
from utils.method.metrics import label_confusion


def test_the_binary_loss_is_that_of_softmax_probabilities_against_one_hot_labels():
    logits, labels = torch.randn(4, 3, 5, dtype=torch.float64), torch.randint(5, (4, 3))
    expected = F.binary_cross_entropy(logits.softmax(-1), F.one_hot(labels, 5).double())
    torch.testing.assert_close(binary_cross_entropy_of_softmax(logits, labels), expected)


def test_the_binary_loss_stays_finite_where_a_wrong_class_is_certain():
    logits = torch.tensor([[200.0, 0.0, 0.0]], requires_grad=True)
    loss = binary_cross_entropy_of_softmax(logits, torch.tensor([1]))
    loss.backward()
    torch.testing.assert_close(loss.item(), 400.0 / 3, rtol=1e-2, atol=0)
    assert logits.grad.isfinite().all()


def test_top_k_counts_labels_among_the_k_best():
    logits = torch.tensor([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [1.0, 2.0, 3.0]])
    labels = torch.tensor([0, 1, 2, 2])
    assert [top_k_accuracy(logits, labels, k) for k in (1, 2, 5)] == [50.0, 75.0, 100.0]


def test_confusion_has_the_truth_in_rows():
    matrix = label_confusion(torch.tensor([0, 1, 1, 2]), torch.tensor([0, 0, 1, 2]), 3)
    assert matrix.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]


def test_cross_entropy_is_the_mean_over_all_labels():
    logits = torch.tensor([[[0.0, 0.0], [2.0, 0.0]], [[0.0, 1.0], [0.0, 0.0]]])
    labels = torch.tensor([[0, 0], [0, 1]])
    expected = (2 * math.log(2) + math.log(1 + math.exp(-2)) + math.log(1 + math.e)) / 4
    torch.testing.assert_close(cross_entropy(logits, labels).item(), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(cross_entropy(logits[0], labels[0]).item(), (math.log(2) + math.log1p(math.exp(-2))) / 2)


def test_every_second_of_every_clip_counts_in_accuracy_and_confusion():
    logits = torch.tensor([[[2.0, 1.0, 0.0], [0.0, 1.0, 2.0]], [[0.0, 2.0, 1.0], [1.0, 0.0, 2.0]]])
    labels = torch.tensor([[0, 1], [1, 0]])
    assert [top_k_accuracy(logits, labels, k) for k in (1, 2, 3)] == [50.0, 100.0, 100.0]
    matrix = label_confusion(logits.argmax(-1), labels, 4)
    assert matrix.tolist() == [[1, 0, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_losses_are_found_by_the_names_of_the_flag():
    logits, labels = torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0])
    probabilities = logits.softmax(dim=-1)
    assert LOSSES.keys() == {"cross_entropy", "binary"}
    torch.testing.assert_close(LOSSES["cross_entropy"](logits, labels), -probabilities[0, 0].log())
    expected = F.binary_cross_entropy(probabilities, torch.tensor([[1.0, 0.0, 0.0]]))
    torch.testing.assert_close(LOSSES["binary"](logits, labels), expected)
