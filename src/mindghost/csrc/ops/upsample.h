// Maps of another size by bilinear interpolation between the centres of pixels, as PyTorch's F.interpolate has it with
// align_corners=False, and its gradient.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels.h"

namespace ghostnet {

// `maps` maps of height x width pixels -> out_height x out_width. Sizes are any, and may shrink: an output is made of the
// two nearest pixels in each direction, whatever lies between them.
struct Resize {
  int64_t maps, height, width, out_height, out_width;
};

// One direction of it. Where outputs are taken from, and, for the gradient, where each input went.
class Line {
 public:
  Line(int64_t inputs, int64_t outputs);

  Resampling view() const;
  // The outputs that input i went to begin with `begin(i)`; there are `count(i)` of them, with these weights.
  int64_t begin(int64_t i) const { return begin_[i]; }
  int64_t count(int64_t i) const { return start_[i + 1] - start_[i]; }
  int64_t most() const { return most_; }
  const float* shares(int64_t i) const { return shares_.data() + start_[i]; }

  // Output o is near(o) of input first(o) and far(o) of input second(o).
  int64_t first(int64_t o) const { return first_[o]; }
  int64_t second(int64_t o) const { return second_[o]; }
  float near(int64_t o) const { return near_[o]; }
  float far(int64_t o) const { return far_[o]; }

 private:
  int64_t inputs_, outputs_, most_ = 0;
  std::vector<int32_t> first_, second_, begin_, start_;
  std::vector<float> near_, far_, shares_;
};

// The same bits for any number of threads: each row is the work of one.
void upsample(const Kernels& kernels, const Resize& sizes, const float* x, float* out);
void upsample_gradient(const Kernels& kernels, const Resize& sizes, const float* d_out, float* d_x);

}  // namespace ghostnet
