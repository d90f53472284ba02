#include "runtime/linear/layer.h"

#include <algorithm>

namespace openwork {

namespace {

// Rows of one kernel call: as many pointers stand on the stack.
constexpr int64_t kCallRows = 512;
// The same where rows are rounded first, which stay in L2: as many as the widest tile of rows in the lanes takes.
constexpr int64_t kRoundedRows = 128;

// Each packed channel's sum begins with what the activations' zero point takes from it: `shift` times the sum of its weights.
Aligned<int32_t> starts(const PackedWeights& w, int32_t shift) {
  Aligned<int32_t> start(static_cast<size_t>(w.channels()));
  for (int64_t c = 0; c < w.channels(); ++c)
    start[static_cast<size_t>(c)] = shift * w.column_sums()[static_cast<size_t>(w.natural(c))];
  return start;
}

}  // namespace

LinearLayer::LinearLayer(std::shared_ptr<const PackedWeights> weights, const LinearEpilogue& epilogue, bool rounds)
    : weights_(std::move(weights)),
      start_(starts(*weights_, epilogue.found_in_runs ? 1 : weights_->table().activation_offset - epilogue.x_zero_point)),
      epilogue_(epilogue, weights_->channels()), rounds_(rounds), found_in_runs_(epilogue.found_in_runs) {}

LinearPartition LinearLayer::partition(int64_t rows, int threads) const {
  const PackedWeights& w = *weights_;
  const int64_t row_bytes = w.k() * element_bytes(w.type());
  return partition_linear({rows, row_bytes, w.groups(), std::max<int64_t>(1, w.bytes() / w.groups()), w.span(), w.row_step(),
                           form_info(w.form()).body == Body::tiles},
                          threads);
}

GemmArgs LinearLayer::args(const LinearBuffers& b, std::byte* scratch) const {
  const int64_t n = weights_->n(), y_stride = b.y_stride > 0 ? b.y_stride : n;
  return {nullptr, 0, 0, weights_->view(), start_.data(), n, epilogue_.view(), b.residual, n, b.y, y_stride,
          reinterpret_cast<uint8_t*>(scratch)};
}

int64_t LinearLayer::rounded_bytes(int64_t rows) const {
  return rounds_ ? padded_bytes(std::min(rows, kRoundedRows) * weights_->k() * element_bytes(Type::bf16)) : 0;
}

int64_t LinearLayer::run_scale_bytes() const {
  const int64_t channels = weights_->channels();
  return found_in_runs_ ? padded_bytes(channels * 4) + padded_bytes((channels + kEpilogueSlack) * 4) : 0;
}

void LinearLayer::scale_for_run(GemmArgs& call, const float* quantizer, const Block& block, std::byte* scratch) const {
  const KernelTable& table = weights_->table();
  auto* start = reinterpret_cast<int32_t*>(scratch);
  auto* scale = reinterpret_cast<float*>(scratch + padded_bytes(weights_->channels() * 4));
  const int32_t shift = table.activation_offset - static_cast<int32_t>(quantizer[1]);
  // A block is whole spans, within which alone packed and natural order differ.
  const int64_t width = table.group_channels(weights_->form());
  const RunScalesArgs args{start_.data(), call.epilogue.scale, shift, quantizer[0], start, scale};
  table.run_scales(args, block.group_begin * width, block.group_end * width);
  call.start = start;
  call.epilogue.scale = scale;
}

const uint8_t* LinearLayer::find_rows(const void* x, int64_t begin, int64_t end, std::byte* scratch) const {
  const int64_t k = weights_->k(), count = (end - begin) * k;
  if (!rounds_) return static_cast<const uint8_t*>(x) + begin * k * element_bytes(weights_->type());
  auto* rounded = reinterpret_cast<uint16_t*>(scratch);
  const RoundArgs args{static_cast<const float*>(x) + begin * k, count, rounded};
  weights_->table().round_bf16(args, 0, (count + kElementBlock - 1) / kElementBlock);
  return reinterpret_cast<const uint8_t*>(rounded);
}

void LinearLayer::run(const LinearBuffers& buffers, const Block& block, std::byte* scratch) const {
  const int64_t row_bytes = weights_->k() * element_bytes(weights_->type()), most = rounds_ ? kRoundedRows : kCallRows;
  const uint8_t* rows[kCallRows];
  GemmArgs call = args(buffers, scratch + rounded_bytes(block.row_end - block.row_begin));
  call.x = rows;
  call.row_bytes = row_bytes;
  if (found_in_runs_) {
    scale_for_run(call, buffers.quantizer, block, scratch);
    call.scratch += run_scale_bytes();
  }
  for (int64_t begin = block.row_begin; begin < block.row_end; begin += most) {
    const int64_t end = std::min(begin + most, block.row_end);
    const uint8_t* first = find_rows(buffers.x, begin, end, scratch);
    for (int64_t r = 0; r < end - begin; ++r) rows[r] = first + r * row_bytes;
    weights_->kernel()(call, {begin, end, block.group_begin, block.group_end});
  }
}

}  // namespace openwork
