"""A program of its own: runs a file with tflite-micro, MODEL IMAGES ANSWERS ARENA...

Apart, because tflite-micro says what went wrong, and how much memory it took, on standard error alone, and because it
ends the process at some files. It imports nothing of this project.

MODEL is a LiteRT file, IMAGES an .npy file, int8 (N, height, width, channels), ANSWERS the .npy file that is written,
int8 (N, ...). The first ARENA, a number of bytes, that is enough is taken, and printed.
"""

import sys

import numpy as np


def main(model: str, images: str, answers: str, *arenas: str) -> None:
    """Run each image. Raises RuntimeError where no arena is enough."""
    from tflite_micro import runtime

    for arena in map(int, arenas):
        try:
            interpreter = runtime.Interpreter.from_file(model, arena_size=arena)
            break
        except RuntimeError:
            if arena == int(arenas[-1]):
                raise
    given = []
    for image in np.load(images):
        interpreter.set_input(image[np.newaxis], 0)
        interpreter.invoke()
        given.append(interpreter.get_output(0)[0])
    np.save(answers, np.stack(given))
    sys.stdout.write(f"{arena}\n")
    sys.stdout.flush()
    interpreter.print_allocations()


if __name__ == "__main__":
    main(*sys.argv[1:])
