"""Single instances of a source that go to whoever asked for them."""
