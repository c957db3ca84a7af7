// The instruction sets that loops are compiled for, each set better than the one before, and which this machine has.
#pragma once

#include <cstddef>
#include <initializer_list>
#include <vector>

#ifdef GHOSTNET_AVX2
#define GHOSTNET_IF_AVX2(SET) SET(avx2)
#else
#define GHOSTNET_IF_AVX2(SET)
#endif
#ifdef GHOSTNET_AVX512
#define GHOSTNET_IF_AVX512(SET) SET(avx512)
#else
#define GHOSTNET_IF_AVX512(SET)
#endif
#define GHOSTNET_EACH_SET(SET) SET(baseline) GHOSTNET_IF_AVX2(SET) GHOSTNET_IF_AVX512(SET)

namespace ghostnet {

// Of the tables of loops, one for each set, those that this machine can run, the best one last.
template <typename Table>
std::vector<const Table*> usable(std::initializer_list<const Table*> tables) {
  size_t count = 1;
#ifdef GHOSTNET_AVX2
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) count = 2;
#endif
#ifdef GHOSTNET_AVX512
  if (count == 2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl")) count = 3;
#endif
  return {tables.begin(), tables.begin() + count};
}

}  // namespace ghostnet
