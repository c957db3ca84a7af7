// Dropout whose masks are a hash of a key and of each element's position.
#pragma once

#include <cstdint>

#include "kernels.h"

namespace ghostnet {

// y = x / keep, or 0 with the probability `rate`: the same elements for equal keys. It is its own gradient.
void drop(const Kernels& kernels, int64_t size, uint32_t key, float rate, float keep, const float* x, float* y);

}  // namespace ghostnet
