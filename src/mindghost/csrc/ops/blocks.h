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

// A place in a map, which may be outside of it: where a part of the map begins. Channel c begins c maps after `map`.
template <typename Float>
struct Place {
  Float* map = nullptr;  // null: no map
  int64_t top = 0, left = 0;
};

// Equal parts of kTogether maps, of several channels each: element l of pixel (y, x) is the one of map l.
class Block {
 public:
  Block(const Kernels& kernels, int64_t channels, int64_t rows, int64_t columns)
      : kernels_(kernels),
        channels_(channels),
        rows_(rows),
        columns_(columns),
        row_(columns * kTogether),
        plane_(rows * row_),
        values_(channels * plane_),
        zeros_(columns, 0.0f) {}

  int64_t row() const { return row_; }
  int64_t plane() const { return plane_; }
  float* get() { return values_.get(); }

  // The parts of maps of height x width pixels that begin at these places, with zeros where there is no map.
  void read(const Place<const float>* places, int64_t height, int64_t width) {
    int64_t first[kTogether], end[kTogether];  // columns that are in the map
    for (int l = 0; l < kTogether; ++l) {
      first[l] = std::clamp<int64_t>(-places[l].left, 0, columns_);
      end[l] = std::clamp<int64_t>(width - places[l].left, first[l], columns_);
    }
    const int64_t all_first = *std::max_element(first, first + kTogether);
    const int64_t all_end = std::max(all_first, *std::min_element(end, end + kTogether));
    float* to = values_.get();
    for (int64_t c = 0; c < channels_; ++c) {
      for (int64_t y = 0; y < rows_; ++y, to += row_) {
        const float* rows[kTogether];
        for (int l = 0; l < kTogether; ++l) {
          const Place<const float>& at = places[l];
          const int64_t row = at.top + y;
          const bool outside = at.map == nullptr || row < 0 || row >= height;
          rows[l] = outside ? zeros_.data() : at.map + (c * height + row) * width + at.left;
        }
        read_edge(to, rows, first, end, 0, all_first);
        for (const float*& row : rows) row += all_first;
        kernels_.interleave(to + all_first * kTogether, rows, all_end - all_first);
        for (const float*& row : rows) row -= all_first;
        read_edge(to, rows, first, end, all_end, columns_);
      }
    }
  }

  // The way back, of what is in the maps.
  void write(const Place<float>* places, int64_t height, int64_t width) {
    for (int64_t c = 0; c < channels_; ++c) {
      for (int64_t y = 0; y < rows_; ++y) {
        const float* from = values_.get() + c * plane_ + y * row_;
        float* rows[kTogether];
        int64_t columns[kTogether], fewest = columns_;  // in the map
        for (int l = 0; l < kTogether; ++l) {
          const Place<float>& at = places[l];
          const bool inside = at.map != nullptr && at.top + y < height;
          rows[l] = inside ? at.map + (c * height + at.top + y) * width + at.left : nullptr;
          columns[l] = inside ? std::min(columns_, width - at.left) : 0;
          fewest = std::min(fewest, columns[l]);
        }
        if (fewest > 0) kernels_.separate(rows, from, fewest);
        for (int l = 0; l < kTogether; ++l) {
          for (int64_t x = fewest; x < columns[l]; ++x) rows[l][x] = from[x * kTogether + l];
        }
      }
    }
  }

 private:
  static void read_edge(float* to, const float* const* rows, const int64_t* first, const int64_t* end, int64_t from,
                        int64_t until) {
    for (int64_t x = from; x < until; ++x) {
      for (int l = 0; l < kTogether; ++l) to[x * kTogether + l] = x >= first[l] && x < end[l] ? rows[l][x] : 0.0f;
    }
  }

  const Kernels& kernels_;
  const int64_t channels_, rows_, columns_, row_, plane_;
  Scratch values_;
  std::vector<float> zeros_;
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
