// Samples side by side, and weights in the order in which the loops over them read them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "buffers.h"
#include "kernels.h"

namespace ghostnet {

inline int64_t divide_up(int64_t value, int64_t divisor) { return (value + divisor - 1) / divisor; }

// kTogether samples of a tensor (N, channels, height, width), with zeros around each map: element l of pixel (y, x) is
// the one of sample l.
class Block {
 public:
  // `more`: zeros after each row and each map.
  Block(int64_t channels, int64_t height, int64_t width, int64_t pad_height, int64_t pad_width, int64_t more = 0)
      : channels_(channels),
        height_(height),
        width_(width),
        row_((width + 2 * pad_width + more) * kTogether),
        plane_((height + 2 * pad_height + more) * row_),
        first_(pad_height * row_ + pad_width * kTogether),
        values_(channels * plane_) {}

  int64_t row() const { return row_; }
  int64_t plane() const { return plane_; }
  // Where the padding begins, and where the map does.
  float* padded() { return values_.get(); }
  float* map() { return values_.get() + first_; }

  void read(const float* samples) {
    for (int64_t c = 0; c < channels_; ++c) {
      for (int64_t y = 0; y < height_; ++y) {
        float* to = map() + c * plane_ + y * row_;
        const float* from = samples + (c * height_ + y) * width_;
        for (int64_t x = 0; x < width_; ++x, ++from, to += kTogether) {
          for (int lane = 0; lane < kTogether; ++lane) to[lane] = from[lane * channels_ * height_ * width_];
        }
      }
    }
  }

  void write(float* samples) {
    const int64_t sample = channels_ * height_ * width_;
    for (int64_t c = 0; c < channels_; ++c) {
      for (int64_t y = 0; y < height_; ++y) {
        const float* from = map() + c * plane_ + y * row_;
        float* to = samples + (c * height_ + y) * width_;
        for (int lane = 0; lane < kTogether; ++lane) {
          for (int64_t x = 0; x < width_; ++x) to[lane * sample + x] = from[x * kTogether + lane];
        }
      }
    }
  }

 private:
  const int64_t channels_, height_, width_, row_, plane_, first_;
  Buffer values_;
};

// Weights in the order in which `window` reads them: kWindowOuts outputs side by side. `weight(o, i, tap)` gives each.
template <typename Weight>
std::vector<float> packed(int64_t outs, int64_t ins, int64_t taps, const Weight& weight) {
  std::vector<float> values;
  values.reserve(outs * ins * taps);
  for (int64_t first = 0; first < outs; first += kWindowOuts) {
    const int64_t end = std::min<int64_t>(first + kWindowOuts, outs);
    for (int64_t i = 0; i < ins; ++i) {
      for (int64_t tap = 0; tap < taps; ++tap) {
        for (int64_t o = first; o < end; ++o) values.push_back(weight(o, i, tap));
      }
    }
  }
  return values;
}

}  // namespace ghostnet
