"""A page that people can try a network on: drop an image, see its classes, where they were seen, and its like.

`answers` says what there is to say of an image, `fragments` writes that as HTML, `site` is the page, made by gradio,
and its server. Requests come in threads, and networks of MindSpore stand only one: they take turns in the thread that
opened them (`turns`). `guard` says what is let in, `uploads` how long it stays.
"""
