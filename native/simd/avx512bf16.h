// The products of BF16 on AVX-512 with BF16 (Zen 4, Sapphire Rapids and later): all else is avx512vnni.h's.
#pragma once

#include "simd/avx512vnni.h"

namespace openwork {

struct Avx512Bf16 : Avx512<Avx512Tier::bf16> {
  // Two products a lane, added as `Avx512::dot_bf16` does, but without subnormal numbers.
  static F32 dot_bf16(F32 acc, Bytes x, Bytes w) {
    asm("vdpbf16ps %2, %1, %0" : "+v"(acc) : "v"(x), "v"(w));
    return acc;
  }
};

}  // namespace openwork
