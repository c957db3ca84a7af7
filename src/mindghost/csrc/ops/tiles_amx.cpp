// For processors with AMX, by compilers that know of it. Nothing here may instantiate what other files share (inline
// functions, templates of the standard library): the linker would keep one copy, maybe with instructions that the machine
// lacks.
#include "tiles.h"

#if defined(__x86_64__) && defined(__linux__) && \
    ((defined(__clang__) && __clang_major__ >= 12) || (!defined(__clang__) && __GNUC__ >= 11))
#define GHOSTNET_AMX
#endif

#ifdef GHOSTNET_AMX
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifdef __clang__
#include <immintrin.h>
#pragma clang attribute push( \
    __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16,amx-tile,amx-bf16"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512bf16,amx-tile,amx-bf16")
#include <immintrin.h>
#endif

namespace ghostnet {
namespace {

struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// Not on the stack: GCC 12 does not know that the instruction reads all of it.
const TileConfig kConfig;

void begin() { _tile_loadconfig(&kConfig); }
void end() { _tile_release(); }

// Tiles 0 to 3 are the sums, 4 and 5 those of the left, 6 and 7 of the right matrix.
void multiply(float* sums, int64_t row, bool add, const TileMatrix& left, const TileMatrix& right, int64_t steps) {
  const int64_t bytes = row * 4;
  float* below = sums + kTileSide * row;
  if (add) {
    _tile_loadd(0, sums, bytes);
    _tile_loadd(1, sums + kTileSide, bytes);
    _tile_loadd(2, below, bytes);
    _tile_loadd(3, below + kTileSide, bytes);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  for (int64_t step = 0; step < steps; ++step) {
    const char* a = static_cast<const char*>(left.first) + left.steps[step];
    const char* b = static_cast<const char*>(right.first) + right.steps[step];
    _tile_loadd(4, a, left.row);
    _tile_loadd(6, b, right.row);
    _tile_loadd(5, a + left.beside, left.row);
    _tile_loadd(7, b + right.beside, right.row);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, sums, bytes);
  _tile_stored(1, sums + kTileSide, bytes);
  _tile_stored(2, below, bytes);
  _tile_stored(3, below + kTileSide, bytes);
}

void multiply_narrow(float* sums, int64_t row, bool add, const TileMatrix& left, const TileMatrix& right,
                     int64_t steps) {
  const int64_t bytes = row * 4;
  float* below = sums + kTileSide * row;
  if (add) {
    _tile_loadd(0, sums, bytes);
    _tile_loadd(2, below, bytes);
  } else {
    _tile_zero(0);
    _tile_zero(2);
  }
  for (int64_t step = 0; step < steps; ++step) {
    const char* a = static_cast<const char*>(left.first) + left.steps[step];
    _tile_loadd(4, a, left.row);
    _tile_loadd(6, static_cast<const char*>(right.first) + right.steps[step], right.row);
    _tile_loadd(5, a + left.beside, left.row);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(2, 5, 6);
  }
  _tile_stored(0, sums, bytes);
  _tile_stored(2, below, bytes);
}

// The first 16 of `count` elements, or as many as there are.
inline __mmask16 first_of(int64_t count) { return count >= 16 ? 0xFFFF : static_cast<__mmask16>((1u << count) - 1); }

void round(uint16_t* to, const float* x, int64_t count) {
  for (int64_t i = 0; i < count; i += 16) {
    const __mmask16 some = first_of(count - i);
    _mm256_mask_storeu_epi16(to + i, some, (__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(some, x + i)));
  }
}

void round_pairs(uint32_t* to, const float* first, const float* second, int64_t count) {
  for (int64_t i = 0; i < count; i += 16) {
    const __mmask16 some = first_of(count - i);
    const __m512 low = _mm512_maskz_loadu_ps(some, first + i);
    const __m512 high = second ? _mm512_maskz_loadu_ps(some, second + i) : _mm512_setzero_ps();
    const __m512i a = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(low));
    const __m512i b = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(high));
    _mm512_mask_storeu_epi32(to + i, some, _mm512_or_si512(a, _mm512_slli_epi32(b, 16)));
  }
}

// Two blocks at once.
void round_pixels(uint16_t* to, int64_t row, const float* x, int64_t plane, int64_t blocks, int64_t pixels) {
  for (int64_t b = 0; b + 1 < blocks; b += 2, x += 2 * plane, to += 2 * kSideBySide) {
    for (int64_t p = 0; p < pixels; ++p) {
      const __m512d low = _mm512_castpd256_pd512(_mm256_loadu_pd((const double*)(x + p * kSideBySide)));
      const __m512d both = _mm512_insertf64x4(low, _mm256_loadu_pd((const double*)(x + plane + p * kSideBySide)), 1);
      _mm256_storeu_si256((__m256i*)(to + p * row), (__m256i)_mm512_cvtneps_pbh(_mm512_castpd_ps(both)));
    }
  }
  if (blocks % 2 != 0) {
    for (int64_t p = 0; p < pixels; ++p) {
      const __m256 one = _mm256_loadu_ps(x + p * kSideBySide);
      _mm_storeu_si128((__m128i*)(to + p * row), (__m128i)_mm256_cvtneps_pbh(one));
    }
    to += kSideBySide;
  }
  for (int64_t i = blocks * kSideBySide; i < row; i += kSideBySide, to += kSideBySide) {
    for (int64_t p = 0; p < pixels; ++p) _mm_storeu_si128((__m128i*)(to + p * row), _mm_setzero_si128());
  }
}

// Single elements of neighbours side by side, then pairs, then groups of four.
void transpose(uint32_t* to, const uint32_t* from, int64_t row) {
  __m512i v[16], w[16];
  for (int i = 0; i < 16; ++i) v[i] = _mm512_loadu_si512(from + i * row);
  for (int i = 0; i < 16; i += 2) {
    w[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
    w[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    v[i] = _mm512_unpacklo_epi64(w[i], w[i + 2]);
    v[i + 1] = _mm512_unpackhi_epi64(w[i], w[i + 2]);
    v[i + 2] = _mm512_unpacklo_epi64(w[i + 1], w[i + 3]);
    v[i + 3] = _mm512_unpackhi_epi64(w[i + 1], w[i + 3]);
  }
  for (int i = 0; i < 4; ++i) {
    w[i] = _mm512_shuffle_i32x4(v[i], v[i + 4], 0x88);
    w[i + 4] = _mm512_shuffle_i32x4(v[i], v[i + 4], 0xDD);
    w[i + 8] = _mm512_shuffle_i32x4(v[i + 8], v[i + 12], 0x88);
    w[i + 12] = _mm512_shuffle_i32x4(v[i + 8], v[i + 12], 0xDD);
  }
  for (int i = 0; i < 4; ++i) {
    _mm512_storeu_si512(to + i * 16, _mm512_shuffle_i32x4(w[i], w[i + 8], 0x88));
    _mm512_storeu_si512(to + (i + 8) * 16, _mm512_shuffle_i32x4(w[i], w[i + 8], 0xDD));
    _mm512_storeu_si512(to + (i + 4) * 16, _mm512_shuffle_i32x4(w[i + 4], w[i + 12], 0x88));
    _mm512_storeu_si512(to + (i + 12) * 16, _mm512_shuffle_i32x4(w[i + 4], w[i + 12], 0xDD));
  }
}

#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

bool usable() {
  unsigned a, b, c, d, more;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  const bool tiles = (d >> 22 & 1) && (d >> 24 & 1);  // AMX-BF16, AMX-TILE
  if (!tiles || !__get_cpuid_count(7, 1, &more, &b, &c, &d) || !(more >> 5 & 1)) return false;  // AVX512-BF16
  // Of <asm/prctl.h>: a process has to ask for the registers.
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

const Tiles kTiles = {begin, end, multiply, multiply_narrow, round, round_pairs, round_pixels, transpose};

}  // namespace

const Tiles* amx_tiles() {
  static const bool found = usable();
  return found ? &kTiles : nullptr;
}

}  // namespace ghostnet
#else

namespace ghostnet {

const Tiles* amx_tiles() { return nullptr; }

}  // namespace ghostnet
#endif
