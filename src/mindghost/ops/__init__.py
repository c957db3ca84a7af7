"""Operators of our own for training on a CPU, in C++: built at first use (`build`), put into a network (`layers`)."""
