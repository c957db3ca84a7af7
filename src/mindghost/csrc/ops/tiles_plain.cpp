#include <cmath>
#include <cstring>

#include "tiles.h"

namespace ghostnet {
namespace {

void nothing() {}

float value_of(uint16_t rounded) {
  const uint32_t bits = static_cast<uint32_t>(rounded) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

uint16_t rounded(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  if (std::isnan(value)) return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

// Element `place` of a tile's row or column.
uint16_t element(const TileMatrix& matrix, int64_t step, int64_t tile, int64_t row, int64_t place) {
  uint16_t value;
  const char* from = static_cast<const char*>(matrix.first) + matrix.steps[step] + tile * matrix.beside + row * matrix.row;
  std::memcpy(&value, from + place * sizeof(value), sizeof(value));
  return value;
}

template <int64_t kColumns>
void multiply(float* sums, int64_t row, bool add, const TileMatrix& left, const TileMatrix& right, int64_t steps) {
  for (int64_t i = 0; i < 2 * kTileSide; ++i) {
    for (int64_t j = 0; j < kColumns * kTileSide; ++j) {
      float sum = add ? sums[i * row + j] : 0;
      for (int64_t step = 0; step < steps; ++step) {
        for (int64_t k = 0; k < kDepth; ++k) {
          sum += value_of(element(left, step, i / kTileSide, i % kTileSide, k)) *
                 value_of(element(right, step, j / kTileSide, k / 2, j % kTileSide * 2 + k % 2));
        }
      }
      sums[i * row + j] = sum;
    }
  }
}

void round(uint16_t* to, const float* x, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] = rounded(x[i]);
}

void round_pairs(uint32_t* to, const float* first, const float* second, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t high = second ? rounded(second[i]) : 0;
    to[i] = high << 16 | rounded(first[i]);
  }
}

void round_pixels(uint16_t* to, int64_t row, const float* x, int64_t plane, int64_t blocks, int64_t pixels) {
  for (int64_t p = 0; p < pixels; ++p) {
    for (int64_t b = 0; b < blocks; ++b) round(to + p * row + b * kSideBySide, x + b * plane + p * kSideBySide, kSideBySide);
    for (int64_t i = blocks * kSideBySide; i < row; ++i) to[p * row + i] = 0;
  }
}

void transpose(uint32_t* to, const uint32_t* from, int64_t row) {
  for (int64_t i = 0; i < kTileSide; ++i) {
    for (int64_t j = 0; j < kTileSide; ++j) to[i * kTileSide + j] = from[j * row + i];
  }
}

}  // namespace

const Tiles plain_tiles = {nothing, nothing, multiply<2>, multiply<1>, round, round_pairs, round_pixels, transpose};

const Tiles& best_tiles() {
  const Tiles* amx = amx_tiles();
  return amx ? *amx : plain_tiles;
}

}  // namespace ghostnet
