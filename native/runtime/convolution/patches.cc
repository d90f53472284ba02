#include "runtime/convolution/patches.h"

#include <algorithm>
#include <cstring>

#include "kernels/gemm.h"

namespace openwork {

void TapRow::copy(uint8_t* to, const uint8_t* row, int64_t first) const {
  std::memcpy(to, zeros, static_cast<size_t>(bytes()));
  const int64_t begin = std::max<int64_t>(first, 0), end = std::min(first + taps, image_width);
  if (begin < end)
    std::memcpy(to + (begin - first) * pixel, row + begin * pixel, static_cast<size_t>((end - begin) * pixel));
}

Patches::Patches(const ConvGeometry& geometry, const TapRow& taps, const ConvColumns& inside)
    : g_(geometry), taps_(taps), inside_(inside) {
  // A copy of a size that the compiler knows takes two instructions. What it writes behind the taps is written again by the
  // next row of taps, or lies behind the last one; what it reads behind them is read-ahead.
  static_assert(kReadAhead >= 63);
  const int64_t bytes = taps_.bytes();
  copy_ = bytes <= 16   ? &Patches::copy_taps<16>
          : bytes <= 32 ? &Patches::copy_taps<32>
          : bytes <= 64 ? &Patches::copy_taps<64>
                        : &Patches::copy_taps<0>;
  const int64_t chunk = bytes <= 16 ? 16 : bytes <= 32 ? 32 : std::max<int64_t>(bytes, 64);
  stride_ = ((g_.shape.height.kernel - 1) * bytes + chunk + 31) / 32 * 32;
}

void Patches::make(const uint8_t* x, int64_t row_begin, int64_t row_end, uint8_t* to) const {
  for_each_line(g_, row_begin, row_end, [&](const ConvLine& line) {
    for (int64_t tap_row = 0; tap_row < g_.shape.height.kernel; ++tap_row)
      (this->*copy_)(x, line, tap_row, to + line.at * stride_ + tap_row * taps_.bytes());
  });
}

template <int chunk>
void Patches::copy_taps(const uint8_t* x, const ConvLine& line, int64_t tap_row, uint8_t* to) const {
  const auto size = static_cast<size_t>(chunk ? chunk : taps_.bytes());
  const int64_t in_row = g_.shape.height.first_input(line.row) + tap_row * g_.shape.height.dilation;
  int64_t column = line.columns.begin;
  if (in_row < 0 || in_row >= g_.in_height) {
    for (; column < line.columns.end; ++column, to += stride_) std::memcpy(to, taps_.zeros, size);
    return;
  }
  const uint8_t* row = x + (line.image * g_.in_height + in_row) * g_.in_width * taps_.pixel;
  const ConvColumns inside = inside_.within(line.columns);
  const ConvAxis& width = g_.shape.width;
  for (; column < inside.begin; ++column, to += stride_) taps_.copy(to, row, width.first_input(column));
  // Read before the loop: the bytes it stores may be anything to the compiler, this object included.
  const int64_t stride = stride_, step = width.stride * taps_.pixel;
  const uint8_t* from = row + (inside.begin < inside.end ? width.first_input(inside.begin) * taps_.pixel : 0);
  for (; column < inside.end; ++column, to += stride, from += step) std::memcpy(to, from, size);
  for (; column < line.columns.end; ++column, to += stride_) taps_.copy(to, row, width.first_input(column));
}

}  // namespace openwork
