// What squeeze-and-excitation does to whole maps: their means, and their products with a gate each.
#pragma once

#include <cstdint>

#include "kernels.h"

namespace ghostnet {

// `maps` maps of `size` elements, one after the other, and one mean or gate for each. Every map is the work of one
// thread: the same bits for any number of threads.
void means(const Kernels& kernels, int64_t maps, int64_t size, const float* x, float* means);
void means_gradient(int64_t maps, int64_t size, const float* d_means, float* d_x);
void gate(const Kernels& kernels, int64_t maps, int64_t size, const float* x, const float* gates, float* y);
void gate_gradient(const Kernels& kernels, int64_t maps, int64_t size, const float* x, const float* gates,
                   const float* d_y, float* d_x, float* d_gates);

}  // namespace ghostnet
