#include "runtime/convolution_indirection.h"

#include <algorithm>
#include <cstring>

namespace openwork {

namespace {

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

// Output pixels side by side in one row of one image.
struct Indirection::Segment {
  int64_t image, row, column_begin, column_end;
  int64_t at;  // of the first one in its block
};

// One block on its way.
struct Indirection::Filling {
  const Indirection& of;
  const uint8_t* x;
  const uint8_t** table;
  int64_t stride;
  uint8_t* next_patch;

  const uint8_t** entry(int64_t run, int64_t at) const { return table + run * stride + at; }

  void fill(const Segment& s) {
    for (int64_t run = 0; run < of.runs_.count; ++run) fill_run(s, run);
  }

  void fill_run(const Segment& s, int64_t run) {
    const ConvGeometry& g = of.g_;
    const uint8_t** out = entry(run, s.at);
    const int64_t in_row = g.shape.height.first_input(s.row) + run / of.run_columns_ * g.shape.height.dilation;
    if (in_row < 0 || in_row >= g.in_height) {
      std::fill_n(out, s.column_end - s.column_begin, of.zeros_.as<const uint8_t>());
      return;
    }
    const int64_t tap = run % of.run_columns_;
    const int64_t begin = std::clamp(of.inside_[tap].begin, s.column_begin, s.column_end);
    const int64_t end = std::clamp(of.inside_[tap].end, begin, s.column_end);
    const int64_t row_begin = (s.image * g.in_height + in_row) * g.in_width;
    const int64_t first = g.shape.width.first_input(begin) + tap * g.shape.width.dilation;
    outside(s, run, row_begin, {s.column_begin, begin});
    // Without the branch a pointer outside of x would be made, which is undefined.
    if (begin < end) point(out + begin - s.column_begin, x + (row_begin + first) * of.pixel_, end - begin);
    outside(s, run, row_begin, {end, s.column_end});
  }

  void point(const uint8_t** out, const uint8_t* first, int64_t count) const {
    const int64_t step = of.g_.shape.width.stride * of.pixel_;
    for (int64_t i = 0; i < count; ++i) out[i] = first + i * step;
  }

  // The columns whose runs are not wholly inside of their input row, which begins at the pixel `row_begin` of x.
  void outside(const Segment& s, int64_t run, int64_t row_begin, const Columns& columns) {
    for (int64_t column = columns.begin; column < columns.end; ++column) {
      const int64_t at = s.at + column - s.column_begin;
      *entry(run, at) = of.runs_.merged ? patch(s, run, row_begin, column) : of.zeros_.as<const uint8_t>();
    }
  }

  const uint8_t* patch(const Segment& s, int64_t run, int64_t row_begin, int64_t column) {
    const int64_t above = s.at + column - s.column_begin - of.g_.out_width;
    if (of.shift_ && s.row > 0 && above >= 0 && run + of.shift_ < of.runs_.count) return *entry(run + of.shift_, above);
    return make_patch(row_begin, of.g_.shape.width.first_input(column));
  }

  // A copy of the run that begins at column `first` of its input row.
  const uint8_t* make_patch(int64_t row_begin, int64_t first) {
    uint8_t* made = next_patch;
    next_patch += padded_bytes(of.runs_.bytes);
    std::memcpy(made, of.zeros_.data(), of.runs_.bytes);
    const int64_t begin = std::max<int64_t>(first, 0), end = std::min(first + of.runs_.taps, of.g_.in_width);
    if (begin < end)
      std::memcpy(made + (begin - first) * of.pixel_, x + (row_begin + begin) * of.pixel_, (end - begin) * of.pixel_);
    return made;
  }
};

Indirection::Indirection(const ConvGeometry& geometry, const ConvRuns& runs, int element_bytes, int zero_point)
    : g_(geometry), runs_(runs), pixel_(geometry.shape.channels * element_bytes),
      run_columns_(runs.merged ? 1 : geometry.shape.width.kernel), zeros_(runs.bytes) {
  const ConvAxis& height = g_.shape.height;
  shift_ = height.stride % height.dilation == 0 ? height.stride / height.dilation : 0;
  for (int64_t tap = 0; tap < run_columns_; ++tap) inside_.push_back(inside(tap));
  std::memset(zeros_.data(), zero_point, padded_bytes(runs.bytes));
}

Indirection::Columns Indirection::inside(int64_t tap) const {
  const ConvAxis& width = g_.shape.width;
  // The run of output column c covers the input columns [c * stride - lead, c * stride - lead + taps).
  const int64_t lead = width.pad_begin - tap * width.dilation, room = g_.in_width - runs_.taps + lead;
  const int64_t begin = std::min(lead > 0 ? divide_up(lead, width.stride) : 0, g_.out_width);
  const int64_t end = room < 0 ? 0 : std::min(room / width.stride + 1, g_.out_width);
  return {begin, std::max(begin, end)};
}

int64_t Indirection::most_patches(int64_t rows) const {
  if (!runs_.merged) return 0;
  const int64_t image = g_.out_height * g_.out_width;
  const int64_t images = std::min(g_.batch, (rows + image - 2) / image + 1);
  const int64_t out_rows = std::min(images * g_.out_height, (rows + g_.out_width - 2) / g_.out_width + 1);
  const int64_t border = g_.out_width - (inside_[0].end - inside_[0].begin);
  // A column's first pixel of each image makes all of its patches, the next ones those that no pixel above has made.
  const int64_t made = shift_ ? images * runs_.count + out_rows * std::min(shift_, runs_.count) : out_rows * runs_.count;
  return std::min({rows * runs_.count, border * made, border * out_rows * runs_.count});
}

int64_t Indirection::table_bytes(int64_t rows) const {
  return divide_up(rows * runs_.count * static_cast<int64_t>(sizeof(void*)), kAlignment) * kAlignment;
}

int64_t Indirection::scratch_bytes(int64_t rows) const {
  return table_bytes(rows) + most_patches(rows) * padded_bytes(runs_.bytes);
}

PointerTable Indirection::make(const uint8_t* x, int64_t row_begin, int64_t row_end, std::byte* scratch) const {
  const int64_t rows = row_end - row_begin;
  auto** table = reinterpret_cast<const uint8_t**>(scratch);
  Filling filling{*this, x, table, rows, reinterpret_cast<uint8_t*>(scratch + table_bytes(rows))};
  for (int64_t row = row_begin; row < row_end;) {
    const int64_t line = row / g_.out_width, column = row % g_.out_width;
    const int64_t end = std::min(g_.out_width, column + row_end - row);
    filling.fill({line / g_.out_height, line % g_.out_height, column, end, row - row_begin});
    row += end - column;
  }
  return {table, rows};
}

}  // namespace openwork
