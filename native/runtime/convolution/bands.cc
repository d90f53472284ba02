#include "runtime/convolution/bands.h"

namespace openwork {

namespace {

// Rows of taps [begin, end) of output row `out` that lie inside of the image, if not all of it is padding.
RowBand inside(const ConvAxis& height, int64_t in_height, int64_t out) {
  const int64_t first = height.first_input(out), step = height.dilation;
  const int64_t begin = first < 0 ? (step - 1 - first) / step : 0;
  const int64_t end = first >= in_height ? 0 : (in_height - 1 - first) / step + 1;
  const int64_t last = std::clamp<int64_t>(end, 0, height.kernel);
  return {0, std::min(begin, last), last};
}

RowBand both(const RowBand& a, const RowBand& b) {
  return {b.row_end, std::min(a.run_begin, b.run_begin), std::max(a.run_end, b.run_end)};
}

int64_t runs(const RowBand& band) { return band.run_end - band.run_begin; }

// Joins a band of few rows to the one beside it to which it adds less.
void join_short(Bands& bands, int64_t row_begin) {
  const auto rows = [&](size_t i) { return bands[i].row_end - (i ? bands[i - 1].row_end : row_begin); };
  const auto added = [&](size_t i) {
    const int64_t joined = runs(both(bands[i], bands[i + 1]));
    return (joined - runs(bands[i])) * rows(i) + (joined - runs(bands[i + 1])) * rows(i + 1);
  };
  for (size_t i = 0; i < bands.size() && bands.size() > 1;) {
    if (rows(i) >= kLeastBandRows) {
      ++i;
      continue;
    }
    const bool before = i > 0 && (i + 1 == bands.size() || added(i - 1) <= added(i));
    const size_t first = before ? i - 1 : i;
    bands[first] = both(bands[first], bands[first + 1]);
    bands.erase(bands.begin() + static_cast<std::ptrdiff_t>(first) + 1);
    i = 0;
  }
}

Bands bands_of(const ConvGeometry& g, int64_t run_columns, int64_t row_begin, int64_t row_end) {
  Bands bands;
  for_each_line(g, row_begin, row_end, [&](const ConvLine& line) {
    RowBand band = inside(g.shape.height, g.in_height, line.row);
    band.row_end = row_begin + line.at + line.columns.end - line.columns.begin;
    if (!bands.empty() && bands.back().run_begin == band.run_begin && bands.back().run_end == band.run_end)
      bands.back().row_end = band.row_end;
    else
      bands.push_back(band);
  });
  join_short(bands, row_begin);
  for (RowBand& band : bands) band.run_begin *= run_columns, band.run_end *= run_columns;
  return bands;
}

}  // namespace

std::vector<Bands> find_bands(const Indirection& indirection, const LinearPartition& partition) {
  const int64_t tap_rows = indirection.geometry().shape.height.kernel;
  std::vector<Bands> found;
  if (tap_rows == 1 || indirection.runs() < tap_rows) return found;
  bool shorter = false;
  for (int64_t r = 0; r < partition.row_blocks; ++r) {
    const Block block = partition.block(r);
    found.push_back(bands_of(indirection.geometry(), indirection.runs() / tap_rows, block.row_begin, block.row_end));
    for (const RowBand& band : found.back()) shorter = shorter || runs(band) < indirection.runs();
  }
  return shorter ? found : std::vector<Bands>{};
}

}  // namespace openwork
