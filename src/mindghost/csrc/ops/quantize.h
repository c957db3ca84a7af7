// Values rounded to those that integers of few bits stand for.
#pragma once

#include <cstdint>

#include "kernels.h"

namespace ghostnet {

// How maps are rounded: what is left of the last range when a batch's is averaged into it, the smallest range there is,
// and how many levels lie above the lowest one.
struct MapRounding {
  float kept, tiny;
  int levels;
};

// The smallest and largest of all maps so far, averaged; equal before the first. 0 lies between them.
struct Range {
  float low, high;
};

// The range once that of x has been averaged into it.
Range averaged(const Kernels& kernels, int64_t size, const float* x, Range before, const MapRounding& rounding);

// y = x, rounded to the levels of a range, of which 0 is one; and the gradient.
void quantize(const Kernels& kernels, int64_t size, const float* x, Range range, const MapRounding& rounding, float* y);
void quantize_gradient(const Kernels& kernels, int64_t size, const float* x, const float* d_y, Range range,
                       const MapRounding& rounding, float* d_x);

// A weight of `outputs` rows of `size` elements. Each row has levels of its own, from -`levels` to `levels`, the last of
// which is its largest element, or `tiny` where that is less.
struct Rows {
  int64_t outputs, size;
  const float* weight;
  float tiny;
  int levels;
};

// y = a weight, rounded.
void quantize_weight(const Kernels& kernels, const Rows& rows, float* y);

// y = a bias, each element rounded to a multiple of what a level of its row of the weight, times one of the range, is.
void quantize_bias(const Kernels& kernels, const Rows& rows, const float* bias, Range range, const MapRounding& rounding,
                   float* y);

}  // namespace ghostnet
