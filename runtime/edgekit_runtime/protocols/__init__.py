"""The wire protocols: pure functions between bytes and tensors, without sockets."""
