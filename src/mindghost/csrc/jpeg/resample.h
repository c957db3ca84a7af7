// Bilinear resizing, row by row as a file is decoded: bit for bit OpenCV's of 8-bit pixels, which is MindSpore's. Weights
// have 11 bits, a row is stretched first, and four bits are dropped before two rows are weighted.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace resample {

constexpr int kOne = 2048;   // a weight of one
constexpr int kPadding = 8;  // bytes behind a row of pixels that may be read, entries behind a stretched one for writing

// What becomes of pixels: a box is resized to `size`, of which a window is taken, which may be mirrored.
struct Plan {
  int top, left, height, width;                                 // the box
  int new_height, new_width;                                    // its size
  int window_top, window_left, window_height, window_width;     // the window
  int mirrored, upended;                                        // left and right, top and bottom exchanged
};

struct Tap {
  int first;          // pixel of the box, or row
  int16_t own, next;  // weights of it and of the one behind it
};

// OpenCV's positions and weights, of an axis. At the right edge all weight is on the last pixel.
inline Tap tap_at(int place, int length, int new_length, bool clamped) {
  const double scale = 1.0 / (double(new_length) / length);
  float share = float((place + 0.5) * scale - 0.5);
  int first = int(std::floor(share));
  share -= float(first);
  if (clamped && first < 0) first = 0, share = 0;
  if (clamped && first >= length - 1) first = length - 1, share = 0;
  return {first, int16_t(std::lrintf((1.0f - share) * kOne)), int16_t(std::lrintf(share * kOne))};
}

// OpenCV takes the mean of four pixels where both sides are halved.
inline bool is_halving(const Plan& plan) {
  return plan.height == 2 * plan.new_height && plan.width == 2 * plan.new_width;
}

inline bool is_possible(const Plan& plan) {
  const auto within = [](int start, int length, int limit) {
    return start >= 0 && length > 0 && int64_t(start) + length <= limit;
  };
  return plan.height > 0 && plan.width > 0 && within(plan.window_top, plan.window_height, plan.new_height) &&
         within(plan.window_left, plan.window_width, plan.new_width);
}

// One row of a box, from its pixel `start` on, to each pixel of the window's width: 16 times its value's 1/2048.
inline void stretch(const uint8_t* row, int start, const std::vector<Tap>& taps, int16_t* out) {
#if defined(__SSE2__)
  const __m128i zero = _mm_setzero_si128();
  for (const Tap& tap : taps) {
    const __m128i two = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(row + 3 * ptrdiff_t(tap.first - start)));
    const __m128i pairs = _mm_unpacklo_epi8(_mm_unpacklo_epi8(two, _mm_srli_si128(two, 3)), zero);
    const __m128i weights = _mm_set1_epi32(int(uint16_t(tap.own)) | int(tap.next) << 16);
    const __m128i sums = _mm_srai_epi32(_mm_madd_epi16(pairs, weights), 4);
    _mm_storel_epi64(reinterpret_cast<__m128i*>(out), _mm_packs_epi32(sums, sums));
    out += 3;
  }
#else
  for (const Tap& tap : taps) {
    const uint8_t* pixel = row + 3 * ptrdiff_t(tap.first - start);
    for (int c = 0; c < 3; ++c) *out++ = int16_t((pixel[c] * tap.own + pixel[c + 3] * tap.next) >> 4);
  }
#endif
}

inline void weigh(const int16_t* above, const int16_t* below, const Tap& tap, int count, uint8_t* out) {
  const int own = tap.own, next = tap.next;
  for (int i = 0; i < count; ++i) {
    const int16_t first = int16_t(own * above[i] >> 16), second = int16_t(next * below[i] >> 16);
    out[i] = uint8_t((first + second + 2) >> 2);
  }
}

// (width, 3) -> planes of floats, each `plane` behind the one before, by a table of 256 for each channel.
inline void look_up(const uint8_t* pixels, int width, const float* table, int channels, float* out, size_t plane) {
  for (int c = 0; c < channels; ++c, table += 256, out += plane) {
    for (int x = 0; x < width; ++x) out[x] = table[pixels[3 * x + c]];
  }
}

// Where the window's pixels go: bytes (height, width, 3), or with a table floats (channels, height, width).
struct Target {
  uint8_t* pixels;
  const float* table;
  int channels;
  float* planes;
};

// Takes the rows of a box one after the other, and makes those of the window as soon as they can be.
class Resizer {
 public:
  Resizer(const Plan& plan, const Target& target) : plan_(plan), target_(target) {
    for (int x = 0; x < plan.window_width; ++x) {
      const int place = plan.mirrored ? plan.window_width - 1 - x : x;
      columns_.push_back(tap_at(plan.window_left + place, plan.width, plan.new_width, true));
      first_column_ = std::min(first_column_, columns_.back().first);
      last_column_ = std::max(last_column_, std::min(columns_.back().first + 1, plan.width - 1));
    }
    for (int y = 0; y < plan.window_height; ++y) {
      rows_.push_back(tap_at(plan.window_top + y, plan.height, plan.new_height, false));
    }
    stretched_[0].resize(size_t(3) * plan.window_width + kPadding);
    stretched_[1].resize(size_t(3) * plan.window_width + kPadding);
    line_.resize(size_t(3) * plan.window_width);
  }

  // Rows and columns of the box that the window is made of.
  int first_row() const { return above(rows_.front()); }
  int last_row() const { return below(rows_.back()); }
  int first_column() const { return first_column_; }
  int last_column() const { return last_column_; }

  // The next row of the box, from `first_row` on; its pixels from `start` on, and kPadding bytes behind the last one.
  void take(int row, const uint8_t* pixels, int start) {
    bool stretched = false;
    for (; made_ < plan_.window_height; ++made_) {
      const Tap& tap = rows_[made_];
      if (above(tap) > row) break;
      if (!stretched) {
        std::swap(stretched_[0], stretched_[1]);  // the row before is above
        stretch(pixels, start, columns_, stretched_[1].data());
        stretched = true;
      }
      if (below(tap) > row) break;
      make(tap, stretched_[above(tap) == row].data(), stretched_[1].data());
    }
  }

 private:
  int above(const Tap& tap) const { return std::clamp(tap.first, 0, plan_.height - 1); }
  int below(const Tap& tap) const { return std::clamp(tap.first + 1, 0, plan_.height - 1); }

  void make(const Tap& tap, const int16_t* above, const int16_t* below) {
    const size_t y = plan_.upended ? plan_.window_height - 1 - made_ : made_, width = plan_.window_width;
    uint8_t* line = target_.table == nullptr ? target_.pixels + 3 * width * y : line_.data();
    weigh(above, below, tap, int(3 * width), line);
    if (target_.table == nullptr) return;
    const size_t plane = width * plan_.window_height;
    look_up(line, int(width), target_.table, target_.channels, target_.planes + width * y, plane);
  }

  const Plan plan_;
  const Target target_;
  std::vector<Tap> columns_, rows_;
  int first_column_ = INT32_MAX, last_column_ = 0, made_ = 0;
  std::vector<int16_t> stretched_[2];
  std::vector<uint8_t> line_;
};

}  // namespace resample
