#include "runtime/timing/convolution.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "runtime/timing/layer_timer.h"

namespace openwork {

namespace {

void check(bool holds, const std::string& sentence) {
  if (!holds) throw std::invalid_argument(sentence);
}

// A layer with a plan, and every thread's scratch.
struct Planned {
  const ConvLayer& layer;
  ConvPlan plan;
  ThreadScratch scratch;

  Planned(const ConvLayer& layer_, const ImageSize& size, int threads)
      : layer(layer_), plan(layer.plan(size.batch, size.height, size.width, threads)),
        scratch(threads, plan.scratch_bytes()) {}

  void run(ThreadPool& pool, const LinearBuffers& buffers) const {
    pool.run(plan.partition.units(), [&](int64_t unit, int thread) {
      layer.run(plan, buffers, unit, scratch.of(thread));
    });
  }
};

// Activations f32 rounded to BF16, all of them before a layer, as a step of its own does it.
class Rounding {
 public:
  explicit Rounding(int64_t count) : count_(count), rounded_(count * element_bytes(Type::bf16)) {}

  const void* run(ThreadPool& pool, const KernelTable& table, const void* x) const {
    const RoundArgs args{static_cast<const float*>(x), count_, rounded_.as<uint16_t>()};
    const int64_t blocks = (count_ + kElementBlock - 1) / kElementBlock, parts = std::min<int64_t>(blocks, kPartsPerThread * pool.threads());
    pool.run(parts, [&](int64_t part, int) { table.round_bf16(args, blocks * part / parts, blocks * (part + 1) / parts); });
    return rounded_.data();
  }

 private:
  static constexpr int64_t kPartsPerThread = 4;
  int64_t count_;
  AlignedBuffer rounded_;
};

void check_timing(const std::vector<std::shared_ptr<const PackedWeights>>& weights, const ConvTiming& timing) {
  check(!weights.empty(), "Expected at least one set of weights to time, found none.");
  check(timing.repeats > 0, "Expected repeats of at least 1, found " + std::to_string(timing.repeats) + ".");
  const WeightShape& first = weights[0]->shape();
  for (const auto& w : weights) {
    const WeightShape& s = w->shape();
    check(s.n == first.n && s.channels == first.channels && s.kernel_h == first.kernel_h && s.kernel_w == first.kernel_w &&
              s.groups == first.groups,
          "Expected weights of one shape to time against each other.");
  }
}

}  // namespace

void run_convolution(const ConvLayer& layer, const ImageSize& size, const LinearBuffers& buffers, int threads) {
  const Planned planned(layer, size, threads);
  const int64_t bytes =
      size.batch * size.height * size.width * layer.shape().channels * element_bytes(layer.weights().type());
  const AlignedBuffer padded(bytes);
  std::memcpy(padded.data(), buffers.x, static_cast<size_t>(bytes));
  ThreadPool pool(threads);
  planned.run(pool, {padded.data(), buffers.residual, buffers.y});
}

std::vector<std::vector<double>> time_convolution(const std::vector<std::shared_ptr<const PackedWeights>>& weights,
                                                  const ConvTiming& timing) {
  check_timing(weights, timing);
  const Type type = activation_type(weights, timing.floats);
  const LinearEpilogue epilogue = timing_epilogue(weights[0]->n(), timing.activation, timing.quantized);
  std::vector<ConvLayer> layers;
  layers.reserve(weights.size());
  for (const auto& w : weights) layers.emplace_back(w, epilogue, timing.attributes);
  std::vector<std::unique_ptr<Planned>> planned;
  for (const auto& layer : layers) planned.push_back(std::make_unique<Planned>(layer, timing.size, timing.threads));
  const ConvGeometry geometry =
      make_geometry(layers[0].shape(), timing.size.batch, timing.size.height, timing.size.width);
  const int64_t elements = geometry.pixels() * geometry.shape.channels;
  const Rounding rounding(timing.floats ? elements : 0);
  LayerTimer timer(timing.threads, type, elements, geometry.rows() * geometry.shape.n * (timing.quantized ? 1 : 4));
  const auto once = [&](size_t w, int repeat) {
    return timer.once(repeat, [&](LinearBuffers buffers) {
      if (weights[w]->type() != type) buffers.x = rounding.run(timer.pool(), weights[w]->table(), buffers.x);
      planned[w]->run(timer.pool(), buffers);
    });
  };
  return time_in_turns(weights.size(), timing.repeats, once);
}

}  // namespace openwork
