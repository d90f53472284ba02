// The table of pointers through which a convolution runs as a matrix product: for each run and output pixel, where its input
// begins. What lies in the padding leads to zero points; a row of taps that crosses the image's border is copied.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "runtime/buffer.h"
#include "runtime/convolution_shape.h"

namespace openwork {

// The pointers of a block of rows: x[run * stride + row - first row].
struct PointerTable {
  const uint8_t* const* x;
  int64_t stride;
};

class Indirection {
 public:
  // `zero_point` is what padding holds; 0 where the elements are floats.
  Indirection(const ConvGeometry& geometry, const ConvRuns& runs, int element_bytes, int zero_point);

  const ConvGeometry& geometry() const { return g_; }
  const ConvRuns& runs() const { return runs_; }
  // What make() needs for any block of at most so many rows.
  int64_t scratch_bytes(int64_t rows) const;
  // x: the whole input, with kReadAhead behind it; `scratch` is aligned to 64 bytes and holds scratch_bytes(). The table
  // lives in `scratch` and leads into x, `scratch` and this object.
  PointerTable make(const uint8_t* x, int64_t row_begin, int64_t row_end, std::byte* scratch) const;

 private:
  // Output columns, [begin, end).
  struct Columns {
    int64_t begin, end;
  };
  struct Segment;
  struct Filling;

  // Those whose run lies inside of the image, for the run that begins with the tap in column `tap`.
  Columns inside(int64_t tap) const;
  int64_t most_patches(int64_t rows) const;
  int64_t table_bytes(int64_t rows) const;

  ConvGeometry g_;
  ConvRuns runs_;
  int64_t pixel_;                 // bytes
  int64_t run_columns_;           // runs side by side
  int64_t shift_;                 // a run reads what the run so many below it read one output row before; 0: none does
  std::vector<Columns> inside_;   // of each run column
  AlignedBuffer zeros_;
};

}  // namespace openwork
