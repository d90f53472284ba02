// The tile registers of AMX (Sapphire Rapids and later) beside AVX-512: what a matrix unit adds to avx512vnni.h. The same words as
// array_tiles.h, which says what each means.
#pragma once

#include "simd/array_tiles.h"
#include "simd/avx512vnni.h"

namespace openwork {

// By assembly: GCC's intrinsics take no template's number, and say nothing about memory to the compiler.
class AmxTiles {
 public:
  [[gnu::always_inline]] void configure(const uint8_t (&rows)[8]) {
    struct alignas(64) {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {};
      uint8_t rows[16] = {};
    } config;
    for (int i = 0; i < 8; ++i) config.row_bytes[i] = 64, config.rows[i] = rows[i];
    asm volatile("ldtilecfg %0" : : "m"(config));
  }
  template <int to>
  [[gnu::always_inline]] void zero() {
    asm volatile("tilezero %%tmm%c0" : : "i"(to));
  }
  template <int to>
  [[gnu::always_inline]] void load(const void* from, int64_t stride) {
    asm volatile("tileloadd (%1,%2,1), %%tmm%c0" : : "i"(to), "r"(from), "r"(stride) : "memory");
  }
  template <int from>
  [[gnu::always_inline]] void store(void* to, int64_t stride) {
    asm volatile("tilestored %%tmm%c0, (%1,%2,1)" : : "i"(from), "r"(to), "r"(stride) : "memory");
  }
  template <int acc, int x, int w>
  [[gnu::always_inline]] void dot_i8() {
    asm volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(acc), "i"(x), "i"(w));
  }
  template <int acc, int x, int w>
  [[gnu::always_inline]] void dot_bf16() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(acc), "i"(x), "i"(w));
  }
  // So that a switch of threads has nothing of the unit to save.
  [[gnu::always_inline]] void release() { asm volatile("tilerelease"); }
};

// The words of AVX-512 that fill tiles. Their bytes are of INT8 or BF16 alike.
template <Avx512Tier tier>
struct Avx512Tiles : Avx512<tier> {
  using Bytes = typename Avx512<tier>::Bytes;
  static Bytes pick64(uint64_t to, Bytes window, Bytes index) { return _mm512_maskz_permutexvar_epi8(to, index, window); }
  static Bytes pick64_into(Bytes v, uint64_t to, Bytes window, Bytes index) {
    return _mm512_mask_permutexvar_epi8(v, to, index, window);
  }
  static Bytes spread(uint64_t to, Bytes packed) { return _mm512_maskz_expand_epi8(to, packed); }
};

struct Amx : Avx512Tiles<Avx512Tier::amx> {
  using Tiles = AmxTiles;
};

// The same with a unit of arrays, for the tests.
struct AmxEmulatedAvx512 : Avx512Tiles<Avx512Tier::amx_emulated> {
  using Tiles = ArrayTiles<AmxEmulatedAvx512>;
};

}  // namespace openwork
