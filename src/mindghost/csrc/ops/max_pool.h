// Max pooling by windows of 2x2.
#pragma once

#include <cstdint>

namespace ghostnet {

// The largest of every 2x2 pixels of `maps` maps; a last odd row or column is left out. The gradient goes to the first
// of equal ones, as in PyTorch and oneDNN.
void max_pool(int64_t maps, int64_t height, int64_t width, const float* x, float* out);
void max_pool_gradient(int64_t maps, int64_t height, int64_t width, const float* x, const float* d_out, float* d_x);

}  // namespace ghostnet
