"""A small CNN and a small LSTM as Keras and TensorFlow users have them, on the data of the PyTorch nets.

Refuses nothing; each form is checked where it is used."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from edgekit_runtime.tensors import Array

from tests.zoo.makers import fashion, sensor


def fashion_keras(folder: Path) -> None:
    """Train for two epochs; write `.keras`, `.h5`, a SavedModel, a float and an int8 `.tflite`, and the data."""
    import keras

    images, labels, test_images, test_labels = fashion.data()
    keras.utils.set_random_seed(0)
    layers = keras.layers
    inputs = keras.Input((28, 28, 1), name="image")
    x = layers.Conv2D(12, 3, padding="same", activation="relu")(inputs)
    x = layers.MaxPooling2D()(x)
    x = layers.Conv2D(24, 3, strides=2, padding="same", use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv2D(3, padding="same", activation="relu")(x)
    x = layers.Conv2D(64, 1, activation="relu")(x)
    net = keras.Model(inputs, layers.Dense(10, name="scores")(layers.Flatten()(x)))
    _train(net, np.moveaxis(images, 1, 3), labels, epochs=2, batch=128)
    net.save(folder / "model.keras")
    net.save(folder / "model.h5")
    net.export(folder / "saved_model", format="tf_saved_model", verbose=False)
    chosen = np.random.default_rng(0).choice(len(images), 512, replace=False)
    calibration = np.moveaxis(images[chosen], 1, 3)
    _write_tflite(folder, calibration)
    np.savez_compressed(folder / "test.npz", image=np.moveaxis(test_images, 1, 3), label=test_labels)
    np.savez_compressed(folder / "calibration.npz", image=calibration, label=labels[chosen])


def keras_lstm(folder: Path) -> None:
    """Train on 67 series; write `.keras`, a SavedModel, and the data."""
    import keras

    series, labels = sensor.data("TRAIN")
    keras.utils.set_random_seed(0)
    inputs = keras.Input((24, 1), name="series")
    steps = keras.layers.LSTM(32)(inputs)
    net = keras.Model(inputs, keras.layers.Dense(2, name="scores")(steps))
    _train(net, series, labels, epochs=100, batch=16)
    net.save(folder / "model.keras")
    net.export(folder / "saved_model", format="tf_saved_model", verbose=False)
    test_series, test_labels = sensor.data("TEST")
    np.savez_compressed(folder / "test.npz", series=test_series, label=test_labels)
    np.savez_compressed(folder / "calibration.npz", series=series, label=labels)


def _train(net: object, inputs: Array, labels: Array, epochs: int, batch: int) -> None:
    import keras

    assert isinstance(net, keras.Model)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    net.compile(optimizer=keras.optimizers.Adam(0.004), loss=loss)
    net.fit(inputs, labels, epochs=epochs, batch_size=batch, verbose=0)


def _write_tflite(folder: Path, calibration: Array) -> None:
    """`float.tflite`; and `int8.tflite`, integers at its input and output too, by TensorFlow's own quantizer."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder / "saved_model"))
    (folder / "float.tflite").write_bytes(converter.convert())

    def samples() -> Iterator[list[Array]]:
        for image in calibration[:256]:
            yield [image[np.newaxis]]

    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder / "saved_model"))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = samples
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    (folder / "int8.tflite").write_bytes(converter.convert())
