#include "runtime/convolution/indirection.h"

#include <algorithm>
#include <cstring>

namespace openwork {

namespace {

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

// One block on its way.
struct Indirection::Filling {
  const Indirection& of;
  const uint8_t* x;
  const uint8_t** table;
  int64_t stride;
  uint8_t* next_patch;

  const uint8_t** entry(int64_t run, int64_t at) const { return table + run * stride + at; }

  void fill(const ConvLine& line) {
    const ConvGeometry& g = of.g_;
    int64_t in_row = g.shape.height.first_input(line.row);
    for (int64_t run = 0; run < of.runs_; run += of.run_columns_, in_row += g.shape.height.dilation) {
      if (in_row < 0 || in_row >= g.in_height)
        fill_padding(line, run);
      else
        fill_taps(line, run, x + (line.image * g.in_height + in_row) * g.in_width * of.step_);
    }
  }

  // The runs of one row of taps, the first being `run`.
  void fill_padding(const ConvLine& line, int64_t run) const {
    for (int64_t tap = 0; tap < of.run_columns_; ++tap)
      std::fill_n(entry(run + tap, line.at), line.columns.end - line.columns.begin, of.zeros_.as<const uint8_t>());
  }

  void fill_taps(const ConvLine& line, int64_t run, const uint8_t* row) {
    const ConvAxis& width = of.g_.shape.width;
    for (int64_t tap = 0; tap < of.run_columns_; ++tap) {
      const ConvColumns& columns = line.columns;
      const ConvColumns inside = of.inside_[static_cast<size_t>(tap)].within(columns);
      outside(line, run + tap, row, {columns.begin, inside.begin});
      // Without the condition a pointer outside of x would be made, which is undefined.
      if (inside.begin < inside.end)
        point(entry(run + tap, line.at) + inside.begin - columns.begin, inside.end - inside.begin,
              row + (width.first_input(inside.begin) + tap * width.dilation) * of.step_);
      outside(line, run + tap, row, {inside.end, columns.end});
    }
  }

  void point(const uint8_t** out, int64_t count, const uint8_t* first) const {
    const int64_t step = of.g_.shape.width.stride * of.step_;
    int64_t i = 0;
    // Four at a time: a turn of a loop takes longer than a store.
    for (; i + 4 <= count; i += 4) {
      const uint8_t* p = first + i * step;
      out[i] = p, out[i + 1] = p + step, out[i + 2] = p + 2 * step, out[i + 3] = p + 3 * step;
    }
    for (; i < count; ++i) out[i] = first + i * step;
  }

  // The columns whose runs are not wholly inside of the input row.
  void outside(const ConvLine& line, int64_t run, const uint8_t* row, const ConvColumns& columns) {
    for (int64_t column = columns.begin; column < columns.end; ++column) {
      const int64_t at = line.at + column - line.columns.begin;
      *entry(run, at) = of.run_ == ConvRun::row ? crossing(line, run, row, column) : of.zeros_.as<const uint8_t>();
    }
  }

  // The row of taps that the output pixel above has had copied, or a copy.
  const uint8_t* crossing(const ConvLine& line, int64_t run, const uint8_t* row, int64_t column) {
    const int64_t above = line.at + column - line.columns.begin - of.g_.out_width;
    if (of.shift_ && line.row > 0 && above >= 0 && run + of.shift_ < of.runs_) return *entry(run + of.shift_, above);
    uint8_t* made = next_patch;
    next_patch += padded_bytes(of.run_bytes_);
    of.tap_row().copy(made, row, of.g_.shape.width.first_input(column));
    return made;
  }
};

Indirection::Indirection(const ConvGeometry& geometry, ConvRun run, int element_bytes, int zero_point, int64_t step)
    : g_(geometry), run_(run), pixel_(geometry.shape.channels * element_bytes),
      step_(step > 0 ? step * element_bytes : pixel_),
      row_taps_(run == ConvRun::tap ? 1 : geometry.shape.width.kernel), run_columns_(geometry.shape.width.kernel / row_taps_),
      runs_(run == ConvRun::patch ? 1 : geometry.shape.taps() / row_taps_), run_bytes_(geometry.shape.taps() / runs_ * pixel_),
      zeros_(row_taps_ * pixel_) {
  const ConvAxis& height = g_.shape.height;
  shift_ = height.stride % height.dilation == 0 ? height.stride / height.dilation : 0;
  for (int64_t tap = 0; tap < run_columns_; ++tap) inside_.push_back(inside(tap));
  std::memset(zeros_.data(), zero_point, static_cast<size_t>(padded_bytes(zeros_.bytes())));
}

ConvColumns Indirection::inside(int64_t tap) const {
  const ConvAxis& width = g_.shape.width;
  // The run of output column c covers the input columns [c * stride - lead, c * stride - lead + taps).
  const int64_t lead = width.pad_begin - tap * width.dilation, room = g_.in_width - row_taps_ + lead;
  const int64_t begin = std::min(lead > 0 ? divide_up(lead, width.stride) : 0, g_.out_width);
  const int64_t end = room < 0 ? 0 : std::min(room / width.stride + 1, g_.out_width);
  return {begin, std::max(begin, end)};
}

TapRow Indirection::tap_row() const { return {row_taps_, pixel_, g_.in_width, zeros_.as<const uint8_t>()}; }

int64_t Indirection::most_patches(int64_t rows) const {
  if (run_ != ConvRun::row) return 0;
  const int64_t image = g_.out_height * g_.out_width;
  const int64_t images = std::min(g_.batch, (rows + image - 2) / image + 1);
  const int64_t out_rows = std::min(images * g_.out_height, (rows + g_.out_width - 2) / g_.out_width + 1);
  const int64_t border = g_.out_width - (inside_[0].end - inside_[0].begin);
  // A column's first pixel of each image makes all of its patches, the next ones those that no pixel above has made.
  const int64_t made = shift_ ? images * runs_ + out_rows * std::min(shift_, runs_) : out_rows * runs_;
  return std::min({rows * runs_, border * made, border * out_rows * runs_});
}

int64_t Indirection::table_bytes(int64_t rows) const {
  return divide_up(rows * runs_ * static_cast<int64_t>(sizeof(void*)), kAlignment) * kAlignment;
}

int64_t Indirection::scratch_bytes(int64_t rows) const {
  if (run_ == ConvRun::patch) return table_bytes(rows) + padded_bytes(rows * Patches(g_, tap_row(), inside_[0]).stride());
  return table_bytes(rows) + most_patches(rows) * padded_bytes(run_bytes_);
}

PointerTable Indirection::make_patches(const uint8_t* x, int64_t row_begin, int64_t row_end, std::byte* scratch) const {
  const Patches patches(g_, tap_row(), inside_[0]);
  const int64_t rows = row_end - row_begin;
  auto** table = reinterpret_cast<const uint8_t**>(scratch);
  auto* first = reinterpret_cast<uint8_t*>(scratch + table_bytes(rows));
  patches.make(x, row_begin, row_end, first);
  for (int64_t i = 0; i < rows; ++i) table[i] = first + i * patches.stride();
  return {table, rows, patches.stride()};
}

PointerTable Indirection::make(const uint8_t* x, int64_t row_begin, int64_t row_end, std::byte* scratch) const {
  if (run_ == ConvRun::patch) return make_patches(x, row_begin, row_end, scratch);
  const int64_t rows = row_end - row_begin;
  auto** table = reinterpret_cast<const uint8_t**>(scratch);
  Filling filling{*this, x, table, rows, reinterpret_cast<uint8_t*>(scratch + table_bytes(rows))};
  for_each_line(g_, row_begin, row_end, [&](const ConvLine& line) { filling.fill(line); });
  return {table, rows, g_.shape.height.plain() && g_.shape.width.plain() ? step_ : 0};
}

}  // namespace openwork
