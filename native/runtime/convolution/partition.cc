#include "runtime/convolution/partition.h"

namespace openwork {

namespace {

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Input bytes that an output pixel adds to those that its neighbours see; of copied taps, all of them.
int64_t new_bytes(const Indirection& indirection) {
  const ConvShape& shape = indirection.geometry().shape;
  if (indirection.runs() == 1) return indirection.run_bytes();
  const auto step = [](const ConvAxis& a) { return std::min(a.stride, a.kernel); };
  return indirection.pixel_bytes() * step(shape.height) * step(shape.width);
}

}  // namespace

int64_t most_block_rows(const Indirection& indirection) {
  const int64_t by_table = kTableBytes / static_cast<int64_t>(sizeof(void*)) / indirection.runs();
  const int64_t by_input = kRowBlockBytes / new_bytes(indirection);
  int64_t rows = std::max(kLeastRows, std::min(by_table, by_input));
  while (rows > kLeastRows && indirection.scratch_bytes(rows) > kMostScratchBytes) rows = std::max(kLeastRows, rows / 2);
  return rows;
}

LinearPartition partition_convolution(const Indirection& indirection, const ConvWeightSize& weights, int threads) {
  LinearPartition p{indirection.geometry().rows(), weights.groups, weights.span, 1, 1};
  p.row_blocks = divide_up(p.rows, most_block_rows(indirection));
  const int64_t wanted = threads == 1 ? 1 : kUnitsPerThread * threads;
  // Rows in the lanes are interleaved anew for each block of groups.
  const int64_t block_bytes = weights.panels ? kPanelGroupBytes : kGroupBlockBytes;
  const int64_t by_bytes = weights.row_step > 1 && !weights.panels ? 1 : divide_up(weights.groups * weights.group_bytes, block_bytes);
  // Where one block holds all weights, threads share the pixels: each then finds in its cache those that it made.
  if (by_bytes == 1) p.row_blocks = std::max(p.row_blocks, std::min(wanted, p.rows / kLeastRows));
  const int64_t blocks = std::max(by_bytes, divide_up(weights.row_step > 1 ? threads : wanted, p.row_blocks));
  const int64_t spans = divide_up(weights.groups, weights.span);
  p.group_blocks = std::min(spans, blocks);
  // As many blocks for each thread: nine would take two threads as long as ten.
  const auto even = [&](int64_t count, int64_t most) { return std::min(most, divide_up(count, threads) * threads); };
  if (p.units() % threads && p.group_blocks > 1) p.group_blocks = even(p.group_blocks, spans);
  if (p.units() % threads) p.row_blocks = even(p.row_blocks, p.rows);
  p.row_step = weights.row_step;
  p.row_blocks = std::min(p.row_blocks, divide_up(p.rows, p.row_step));
  return p;
}

}  // namespace openwork
