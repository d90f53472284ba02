// The vocabulary on AVX-512 with VNNI, but without VBMI (Cascade Lake, Cooper Lake).
#pragma once

#include "simd/avx512vnni.h"

namespace openwork {

struct Avx512VnniNoVbmi : Avx512<false> {
  static constexpr const char* kName = "avx512vnni_novbmi";
  // vpermb is VBMI's. Four shuffles in 16-byte quarters and what joins them would cost as much as the four steps of 16 bytes
  // that they replace.
  static constexpr bool kHasShuffle64 = false;
  static Bytes shuffle64(Bytes window, Bytes index) = delete;

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
