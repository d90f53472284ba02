// The table of pointers through which a convolution runs as a matrix product: for each run and output pixel, where its input
// begins. What lies in the padding leads to zero points; what crosses the image's border, or is short, is copied.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "runtime/buffer.h"
#include "runtime/convolution/patches.h"

namespace openwork {

// The pointers of a block of rows: x[run * stride + row - first row].
struct PointerTable {
  const uint8_t* const* x;
  int64_t stride;
  int64_t row_bytes;  // from one row of a run to the next, where all are as far apart; else 0
};

class Indirection {
 public:
  // `zero_point` is what padding holds; 0 where the elements are floats. `step`: elements from pixel to pixel, which for other runs
  // than taps is the number of channels; 0: that number.
  Indirection(const ConvGeometry& geometry, ConvRun run, int element_bytes, int zero_point, int64_t step = 0);

  const ConvGeometry& geometry() const { return g_; }
  int64_t runs() const { return runs_; }
  int64_t run_bytes() const { return run_bytes_; }
  int64_t pixel_bytes() const { return pixel_; }
  // What make() needs for any block of at most so many rows.
  int64_t scratch_bytes(int64_t rows) const;
  // x: the whole input, with kReadAhead behind it; `scratch` is aligned to 64 bytes and holds scratch_bytes(). The table
  // lives in `scratch` and leads into x, `scratch` and this object.
  PointerTable make(const uint8_t* x, int64_t row_begin, int64_t row_end, std::byte* scratch) const;

 private:
  struct Filling;

  // The columns whose run lies inside of the image, for the run that begins with the tap in column `tap`.
  ConvColumns inside(int64_t tap) const;
  TapRow tap_row() const;
  int64_t most_patches(int64_t rows) const;
  int64_t table_bytes(int64_t rows) const;
  PointerTable make_patches(const uint8_t* x, int64_t row_begin, int64_t row_end, std::byte* scratch) const;

  ConvGeometry g_;
  ConvRun run_;
  int64_t pixel_, step_; // bytes; from pixel to pixel
  int64_t row_taps_;     // taps side by side in one run
  int64_t run_columns_;  // runs side by side
  int64_t runs_, run_bytes_;
  int64_t shift_;  // a run reads what the run so many below it read one output row before; 0: none does
  std::vector<ConvColumns> inside_;  // of each run column
  AlignedBuffer zeros_;              // of a run, but of a patch one row of taps
};

}  // namespace openwork
