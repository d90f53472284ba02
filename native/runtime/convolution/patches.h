// Taps copied side by side: the rows of taps that cross an image's border, and all taps of images of few channels, which then
// run as the plainest product, with as few steps as they have weights.
#pragma once

#include <cstdint>

#include "runtime/convolution/shape.h"

namespace openwork {

// A row of taps whose pixels lie side by side.
struct TapRow {
  int64_t taps, pixel;   // pixel: bytes
  int64_t image_width;   // pixels
  const uint8_t* zeros;  // a row of taps of padding

  int64_t bytes() const { return taps * pixel; }
  // From column `first` on of the image's row `row`; what lies outside of it is padding.
  void copy(uint8_t* to, const uint8_t* row, int64_t first) const;
};

class Patches {
 public:
  // `inside`: the output columns whose rows of taps lie inside of the image. `taps.zeros` is readable for kReadAhead bytes
  // behind its end.
  Patches(const ConvGeometry& geometry, const TapRow& taps, const ConvColumns& inside);

  // Bytes from the patch of one output pixel to the next.
  int64_t stride() const { return stride_; }
  // x: the whole input, with kReadAhead behind it; `to` holds a stride for each row.
  void make(const uint8_t* x, int64_t row_begin, int64_t row_end, uint8_t* to) const;

 private:
  // Copies one row of taps of each pixel of a line.
  using Copy = void (Patches::*)(const uint8_t* x, const ConvLine& line, int64_t tap_row, uint8_t* to) const;
  template <int chunk>
  void copy_taps(const uint8_t* x, const ConvLine& line, int64_t tap_row, uint8_t* to) const;

  ConvGeometry g_;
  TapRow taps_;
  ConvColumns inside_;
  Copy copy_ = nullptr;
  int64_t stride_ = 0;
};

}  // namespace openwork
