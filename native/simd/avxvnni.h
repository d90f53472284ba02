// The vocabulary on AVX2 with AVX-VNNI (Alder Lake, Sierra Forest and later): AVX2's registers, AVX-512 VNNI's dot product.
#pragma once

#include "simd/avx2.h"

namespace openwork {

struct AvxVnni : Avx256<true> {
  static constexpr const char* kName = "avxvnni";
  static constexpr int kActivationOffset = 0;
  // 16 registers: two for each row's accumulators, two weights and one window; two indices and a picked window more.
  static constexpr int kMaxRows = 6;
  static constexpr int kMaxRowsSparse = 4;
  static constexpr int kMaxRowsShared2 = 2;

  // vpdpbusd takes the activations as they are.
  static Bytes flip(Bytes v) { return v; }
  static I32 dot(I32 acc, Bytes activation, Bytes weight) {
    return {_mm256_dpbusd_avx_epi32(acc.low, activation.low, weight.low),
            _mm256_dpbusd_avx_epi32(acc.high, activation.high, weight.high)};
  }
  static I32 dot_pairs(I32 acc, I32 a, I32 b) {
    return {_mm256_dpwssd_avx_epi32(acc.low, a.low, b.low), _mm256_dpwssd_avx_epi32(acc.high, a.high, b.high)};
  }
};

}  // namespace openwork
