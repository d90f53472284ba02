#include "runtime/linear.h"

#include <algorithm>

namespace openwork {

namespace {

// Rows of one kernel call: as many pointers stand on the stack.
constexpr int64_t kCallRows = 512;

// Each packed channel's sum begins with what the activations' zero point takes from it.
Aligned<int32_t> starts(const PackedWeights& w, int x_zero_point) {
  Aligned<int32_t> start(static_cast<size_t>(w.channels()));
  const int32_t shift = w.table().activation_offset - x_zero_point;
  for (int64_t c = 0; c < w.channels(); ++c)
    start[static_cast<size_t>(c)] = shift * w.column_sums()[static_cast<size_t>(w.natural(c))];
  return start;
}

}  // namespace

LinearLayer::LinearLayer(std::shared_ptr<const PackedWeights> weights, const LinearEpilogue& epilogue)
    : weights_(std::move(weights)), start_(starts(*weights_, epilogue.x_zero_point)),
      epilogue_(epilogue, weights_->channels()) {}

LinearPartition LinearLayer::partition(int64_t rows, int threads) const {
  const PackedWeights& w = *weights_;
  const int64_t row_bytes = w.k() * element_bytes(w.type());
  return partition_linear({rows, row_bytes, w.groups(), std::max<int64_t>(1, w.bytes() / w.groups()), w.span(), w.row_step()},
                          threads);
}

GemmArgs LinearLayer::args(const void* residual, void* y, std::byte* scratch) const {
  const int64_t n = weights_->n();
  return {nullptr, 0, 0, weights_->view(), start_.data(), n, epilogue_.view(), residual, n, y, n,
          reinterpret_cast<uint8_t*>(scratch)};
}

void LinearLayer::run(const LinearBuffers& buffers, const Block& block, std::byte* scratch) const {
  const int64_t row_bytes = weights_->k() * element_bytes(weights_->type());
  const uint8_t* rows[kCallRows];
  GemmArgs call = args(buffers.residual, buffers.y, scratch);
  call.x = rows;
  call.row_bytes = row_bytes;
  for (int64_t begin = block.row_begin; begin < block.row_end; begin += kCallRows) {
    const int64_t end = std::min(begin + kCallRows, block.row_end);
    for (int64_t r = begin; r < end; ++r) rows[r - begin] = static_cast<const uint8_t*>(buffers.x) + r * row_bytes;
    weights_->kernel()(call, {begin, end, block.group_begin, block.group_end});
  }
}

}  // namespace openwork
