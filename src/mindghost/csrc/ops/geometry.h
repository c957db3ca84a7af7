// Sizes of convolutions.
#pragma once

#include <cstdint>

namespace ghostnet {

inline int64_t divide_up(int64_t value, int64_t divisor) { return (value + divisor - 1) / divisor; }
// The least multiple that is no smaller.
inline int64_t up_to(int64_t value, int64_t multiple) { return divide_up(value, multiple) * multiple; }

// A convolution's sizes: of a map before and after it, of the kernel, and padding on either side.
struct Geometry {
  int64_t height, width, kernel_height, kernel_width, stride, pad_height, pad_width;

  int64_t out_height() const { return (height + 2 * pad_height - kernel_height) / stride + 1; }
  int64_t out_width() const { return (width + 2 * pad_width - kernel_width) / stride + 1; }
};

}  // namespace ghostnet
