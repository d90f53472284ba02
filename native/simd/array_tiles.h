// The registers of a matrix unit in plain C++: the meaning of each of their words, and how kernels that use them are tested where
// there is none. Eight tiles of at most 16 rows of 64 bytes. Source: Intel 64 and IA-32 Architectures Software Developer's Manual,
// volume 2, TDPBUSD and TDPBF16PS.
#pragma once

#include <cstdint>
#include <cstring>

namespace openwork {

// A template over the vocabulary, so that translation units with different flags share no symbol.
template <class V>
class ArrayTiles {
 public:
  // The rows of each tile; all tiles are zero then.
  void configure(const uint8_t (&rows)[8]) {
    std::memset(tiles_, 0, sizeof tiles_);
    std::memcpy(rows_, rows, sizeof rows_);
  }
  template <int to>
  void zero() {
    std::memset(tiles_[to], 0, sizeof tiles_[to]);
  }
  // Rows `stride` bytes apart; 0: all are the same.
  template <int to>
  void load(const void* from, int64_t stride) {
    for (int r = 0; r < rows_[to]; ++r) std::memcpy(tiles_[to][r], static_cast<const uint8_t*>(from) + r * stride, 64);
  }
  template <int from>
  void store(void* to, int64_t stride) const {
    for (int r = 0; r < rows_[from]; ++r) std::memcpy(static_cast<uint8_t*>(to) + r * stride, tiles_[from][r], 64);
  }
  // acc[r][c], INT32, grows by the sum over four bytes of u8 x[r][4 q + i] * s8 w[q][4 c + i], for every row q of w.
  template <int acc, int x, int w>
  void dot_i8() {
    int32_t sums[16];
    for (int r = 0; r < rows_[acc]; ++r) {
      std::memcpy(sums, tiles_[acc][r], 64);
      for (int q = 0; q < rows_[w]; ++q) {
        const uint8_t* a = tiles_[x][r] + 4 * q;
        const auto* b = reinterpret_cast<const int8_t*>(tiles_[w][q]);
        for (int c = 0; c < 16; ++c) sums[c] = add(sums[c], a[0] * b[4 * c] + a[1] * b[4 * c + 1] + a[2] * b[4 * c + 2] + a[3] * b[4 * c + 3]);
      }
      std::memcpy(tiles_[acc][r], sums, 64);
    }
  }
  // acc[r][c], binary32, grows by the products of two BF16 for every row of w: those at even places by themselves, and those at odd
  // ones, and both to what was there.
  template <int acc, int x, int w>
  void dot_bf16() {
    float sums[16];
    for (int r = 0; r < rows_[acc]; ++r) {
      float even[16] = {}, odd[16] = {};
      for (int q = 0; q < rows_[w]; ++q)
        for (int c = 0; c < 16; ++c) {
          even[c] += number(tiles_[x][r] + 4 * q) * number(tiles_[w][q] + 4 * c);
          odd[c] += number(tiles_[x][r] + 4 * q + 2) * number(tiles_[w][q] + 4 * c + 2);
        }
      std::memcpy(sums, tiles_[acc][r], 64);
      for (int c = 0; c < 16; ++c) sums[c] += even[c] + odd[c];
      std::memcpy(tiles_[acc][r], sums, 64);
    }
  }
  void release() {}

 private:
  // Wraps, as the instruction does.
  static int32_t add(int32_t a, int32_t b) { return static_cast<int32_t>(static_cast<uint32_t>(a) + static_cast<uint32_t>(b)); }
  static float number(const uint8_t* p) {
    const uint32_t bits = static_cast<uint32_t>(p[0]) << 16 | static_cast<uint32_t>(p[1]) << 24;
    float v;
    std::memcpy(&v, &bits, sizeof v);
    return v;
  }

  alignas(64) uint8_t tiles_[8][16][64];
  uint8_t rows_[8];
};

}  // namespace openwork
