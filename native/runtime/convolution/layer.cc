#include "runtime/convolution/layer.h"

#include <stdexcept>

#include "runtime/convolution/partition.h"

namespace openwork {

namespace {

ConvShape checked_shape(const PackedWeights& weights, const ConvAttributes& attributes) {
  const ConvShape shape = conv_shape(weights.shape(), attributes);
  check_shape(shape);
  if (weights.shape().run_taps() > 1 && shape.width.dilation != 1)
    throw std::invalid_argument("Expected weights packed for single taps, because the taps of a kernel with dilation " +
                                std::to_string(shape.width.dilation) +
                                " do not lie side by side; found weights packed for runs of several.");
  return shape;
}

}  // namespace

int64_t ConvPlan::table_bytes() const { return padded_bytes(indirection.scratch_bytes(partition.most_rows())); }
int64_t ConvPlan::scratch_bytes() const { return table_bytes() + kernel_scratch; }

ConvLayer::ConvLayer(std::shared_ptr<const PackedWeights> weights, const LinearEpilogue& epilogue, const ConvAttributes& attributes)
    : linear_(std::move(weights), epilogue), shape_(checked_shape(linear_.weights(), attributes)),
      zero_point_(linear_.weights().type() == Type::i8 ? epilogue.x_zero_point : 0) {}

ConvPlan ConvLayer::plan(int64_t batch, int64_t height, int64_t width, int threads, int64_t step) const {
  const PackedWeights& w = weights();
  const int bytes = element_bytes(w.type());
  const ConvGeometry geometry = flattened(make_geometry(shape_, batch, height, width));
  Indirection indirection(geometry, run_of(w.shape()), bytes, zero_point_, step);
  const ConvWeightSize size{w.groups(), std::max<int64_t>(1, w.bytes() / w.groups()), w.span(), w.row_step(),
                            form_info(w.form()).body == Body::tiles};
  LinearPartition partition = partition_convolution(indirection, size, threads);
  std::vector<Bands> bands;
  if (padding_adds_nothing()) bands = find_bands(indirection, partition);
  return {std::move(indirection), partition, w.scratch_bytes(), std::move(bands)};
}

bool ConvLayer::padding_adds_nothing() const {
  const PackedWeights& w = weights();
  return form_info(w.form()).body == Body::windows && (w.type() != Type::i8 || w.table().activation_offset == zero_point_);
}

void ConvLayer::run(const ConvPlan& plan, const LinearBuffers& buffers, int64_t unit, std::byte* scratch) const {
  const Block block = plan.partition.block(unit);
  const PointerTable table =
      plan.indirection.make(static_cast<const uint8_t*>(buffers.x), block.row_begin, block.row_end, scratch);
  GemmArgs args = linear_.args(buffers, scratch + plan.table_bytes());
  args.x = table.x;
  args.x_stride = table.stride;
  args.row_bytes = table.row_bytes;
  if (!plan.bands.empty()) args.bands = plan.bands[static_cast<size_t>(unit % plan.partition.row_blocks)].data();
  weights().kernel()(args, block);
}

}  // namespace openwork
