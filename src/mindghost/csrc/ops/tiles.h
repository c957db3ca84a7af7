// Products of matrices in bfloat16, with sums in float32: by the tiles of AMX, and by loops that do the same.
#pragma once

#include <cstdint>

namespace ghostnet {

// A tile of sums has kTileSide x kTileSide float32. One of the left matrix has as many rows of kDepth bfloat16; one of the
// right matrix as many columns, of which each two elements lie side by side: row r holds the elements 2r and 2r + 1 of all
// columns.
constexpr int64_t kTileSide = 16, kDepth = 32;

// Channels that lie side by side in a map of a plan (plan_kernels.h).
constexpr int64_t kSideBySide = 8;

// Where the tiles of a matrix are, in bytes: from one row to the next, from one tile to the next beside it, and of each
// step of the sum.
struct TileMatrix {
  const void* first;
  int64_t row, beside;
  const int64_t* steps;
};

struct Tiles {
  // What a thread calls before it multiplies, and after that.
  void (*begin)();
  void (*end)();

  // sums = [sums +] left * right, 2 x 2 tiles of sums, whose rows are `row` elements apart.
  void (*multiply)(float* sums, int64_t row, bool add, const TileMatrix& left, const TileMatrix& right, int64_t steps);
  // The left two of these alone: 2 x 1 tiles.
  void (*multiply_narrow)(float* sums, int64_t row, bool add, const TileMatrix& left, const TileMatrix& right,
                          int64_t steps);

  // to = x, rounded to the nearest, halves to the even one. What is not a number stays that.
  void (*round)(uint16_t* to, const float* x, int64_t count);
  // The same of two rows, by turns; `second` may be null, for zeros.
  void (*round_pairs)(uint32_t* to, const float* first, const float* second, int64_t count);
  // Pixels of a plan's map, whose blocks are `plane` values apart, rounded: each a row of `row` elements, channel by channel,
  // with zeros after the last.
  void (*round_pixels)(uint16_t* to, int64_t row, const float* x, int64_t plane, int64_t blocks, int64_t pixels);
  // Rows of pairs, `row` pairs apart, as columns: to[i * kTileSide + j] = from[j * row + i].
  void (*transpose)(uint32_t* to, const uint32_t* from, int64_t row);
};

// By loops, on any processor: slow, for tests.
extern const Tiles plain_tiles;

// By AMX; null where processor or system lack it. The first call asks the system for leave to use it.
const Tiles* amx_tiles();

// Those where there are, else the loops. Python does not ask for bfloat16 where there are none, but for tests.
const Tiles& best_tiles();

}  // namespace ghostnet
