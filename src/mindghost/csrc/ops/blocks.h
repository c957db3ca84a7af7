// Samples side by side, and weights in the order in which the loops over them read them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "buffers.h"
#include "kernels.h"

namespace ghostnet {

// Puts the values of kLanes maps, `apart` elements from one to the next, side by side: kLanes values for each pixel.
template <int kLanes>
void interleave(float* to, const float* from, int64_t apart, int64_t pixels) {
  for (int64_t i = 0; i < pixels; ++i) {
    for (int lane = 0; lane < kLanes; ++lane) to[i * kLanes + lane] = from[lane * apart + i];
  }
}

// The way back.
template <int kLanes>
void separate(float* to, const float* from, int64_t apart, int64_t pixels) {
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int64_t i = 0; i < pixels; ++i) to[lane * apart + i] = from[i * kLanes + lane];
  }
}

// kTogether samples of a tensor (N, channels, height, width), with zeros around each map: element l of pixel (y, x) is
// the one of sample l.
class Block {
 public:
  // `more_height`, `more_width`: zeros after each map, and after each row.
  Block(int64_t channels, int64_t height, int64_t width, int64_t pad_height, int64_t pad_width, int64_t more_height = 0,
        int64_t more_width = 0)
      : channels_(channels),
        height_(height),
        width_(width),
        row_((width + 2 * pad_width + more_width) * kTogether),
        plane_((height + 2 * pad_height + more_height) * row_),
        first_(pad_height * row_ + pad_width * kTogether),
        values_(channels * plane_) {}

  int64_t row() const { return row_; }
  int64_t plane() const { return plane_; }
  // Where the padding begins, and where the map does.
  float* padded() { return values_.get(); }
  float* map() { return values_.get() + first_; }

  void read(const float* samples) {
    each_row([&](float* row, int64_t at) { interleave<kTogether>(row, samples + at, sample(), width_); });
  }

  // Maps number `first` and following of a tensor, up to kTogether, in place of samples: for a block of one channel.
  void read_channels(const float* maps, int64_t first, int64_t count) {
    const int64_t map = height_ * width_;
    const float* from = maps + first * map;
    float* to = this->map();
    for (int64_t y = 0; y < height_; ++y, to += row_, from += width_) {
      if (count == kTogether) {
        interleave<kTogether>(to, from, map, width_);
        continue;
      }
      for (int64_t x = 0; x < width_; ++x) {
        for (int64_t lane = 0; lane < kTogether; ++lane) {
          to[x * kTogether + lane] = lane < count ? from[lane * map + x] : 0.0f;
        }
      }
    }
  }

  void write(float* samples) {
    each_row([&](const float* row, int64_t at) { separate<kTogether>(samples + at, row, sample(), width_); });
  }

 private:
  int64_t sample() const { return channels_ * height_ * width_; }

  // Calls visit(row of this block, where it is in a sample).
  template <typename Visit>
  void each_row(const Visit& visit) {
    for (int64_t c = 0; c < channels_; ++c) {
      for (int64_t y = 0; y < height_; ++y) visit(map() + c * plane_ + y * row_, (c * height_ + y) * width_);
    }
  }

  const int64_t channels_, height_, width_, row_, plane_, first_;
  Buffer values_;
};

// Where `window` looks for a weight: `at_once` outputs (of the last ones, those that are left) lie side by side.
inline int64_t packed_place(int64_t o, int64_t i, int64_t tap, int64_t outs, int64_t ins, int64_t taps,
                            int64_t at_once) {
  const int64_t first = o / at_once * at_once, side = std::min(at_once, outs - first);
  return first * ins * taps + (i * taps + tap) * side + o - first;
}

// Weights in that order; `weight(o, i, tap)` gives each.
template <typename Weight>
std::vector<float> packed(int64_t outs, int64_t ins, int64_t taps, int64_t at_once, const Weight& weight) {
  std::vector<float> values(outs * ins * taps);
  for (int64_t o = 0; o < outs; ++o) {
    for (int64_t i = 0; i < ins; ++i) {
      for (int64_t tap = 0; tap < taps; ++tap) {
        values[packed_place(o, i, tap, outs, ins, taps, at_once)] = weight(o, i, tap);
      }
    }
  }
  return values;
}

}  // namespace ghostnet
