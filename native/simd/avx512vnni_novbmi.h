// The vocabulary on AVX-512 with VNNI, but without VBMI (Cascade Lake, Cooper Lake).
#pragma once

#include "simd/avx512vnni.h"

namespace openwork {

struct Avx512VnniNoVbmi : Avx512<Avx512Tier::vnni> {
  static constexpr const char* kName = "avx512vnni_novbmi";
  // vpermb is VBMI's. Four shuffles in 16-byte quarters and what joins them would cost as much as the four steps of 16 bytes
  // that they replace.
  static constexpr bool kHasShuffle64 = false;
  static Bytes shuffle64(Bytes window, Bytes index) = delete;

  // vpermi2b is VBMI's as well: the taps' bytes are put in order within each lane of four channels.
  static void taps4(const uint8_t* const* x, int64_t at, Bytes (&to)[kStrips]) {
    for (int s = 0; s < kStrips; ++s) {
      const auto load16 = [&](int tap) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(x[tap] + at + 16 * s)); };
      __m512i v = _mm512_inserti32x4(_mm512_castsi128_si512(load16(0)), load16(1), 1);
      v = _mm512_inserti32x4(_mm512_inserti32x4(v, load16(2), 2), load16(3), 3);
      const __m512i columns = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
      const __m512i bytes = _mm512_set4_epi32(0x0f0b0703, 0x0e0a0602, 0x0d090501, 0x0c080400);
      to[s] = _mm512_shuffle_epi8(_mm512_permutexvar_epi32(columns, v), bytes);
    }
  }

  // vpmultishiftqb is VBMI's too: shifts and masks instead.
  static Bytes expand2(const uint8_t* p) {
    __m512i v = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    v = _mm512_or_si512(v, _mm512_slli_epi32(v, 6));
    v = _mm512_or_si512(v, _mm512_slli_epi32(v, 12));
    // (v & 3) | half
    return _mm512_ternarylogic_epi32(v, _mm512_set1_epi32(0x03030303), _mm512_set1_epi32(0x04040000), 0xea);
  }
  static Bytes expand4(const uint8_t* p) {
    // a | b & c
    constexpr int kOrAnd = 0xf8;
    __m512i v = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    v = _mm512_and_si512(_mm512_or_si512(v, _mm512_slli_epi32(v, 8)), _mm512_set1_epi32(0x00ff00ff));
    return _mm512_ternarylogic_epi32(_mm512_and_si512(v, _mm512_set1_epi32(0x000f000f)), _mm512_slli_epi32(v, 4),
                                     _mm512_set1_epi32(0x0f000f00), kOrAnd);
  }
};

}  // namespace openwork
