// The form of convolutions whose channels are each for themselves.
#include <algorithm>
#include <cstring>

#include "kernels/body.h"
#include "kernels/depthwise/cut.h"
#include "kernels/packer.h"

namespace openwork::depthwise {
namespace {

std::string refuse(const WeightShape& s, Type, Form form, const KernelTable&) {
  if (s.channels == 1 && s.groups == s.n && s.run_taps() == 1) return "";
  return "The form " + std::string(form_info(form).name) +
         " runs convolutions whose groups have one input and one output channel each, tap by tap; found " + std::to_string(s.n) +
         " output channels in " + std::to_string(s.groups) + " groups of " + std::to_string(s.channels) + " input channels" +
         (s.run_taps() > 1 ? ", with rows of taps together." : ".");
}

// The taps from column `tap` of a kernel row on, of a group's channels.
void write_taps(Packer& to, int64_t channel, int64_t row, int64_t tap) {
  const int64_t width = to.shape().kernel_w;
  std::byte* step = to.add_step(0);
  for (int64_t c = 0; c < std::min(to.group_channels(), to.shape().n - channel); ++c)
    for (int64_t i = 0; i < to.slots(); ++i)
      if (tap + i >= 0 && tap + i < width)
        std::memcpy(step + 4 * c + i * to.element(), to.reader().taps(channel + c, row * width + tap + i),
                    static_cast<size_t>(to.element()));
}

void pack(Packer& to) {
  const WeightShape& shape = to.shape();
  const DepthwiseSteps cut = depthwise_steps(to.type(), shape.kernel_w);
  to.allocate(to.groups() * shape.kernel_h * cut.steps * cut.outputs, to.group_channels() * 4);
  for (int64_t g = 0; g < to.groups(); ++g) {
    to.begin_group();
    for (int64_t i = 0; i < shape.kernel_h * cut.steps; ++i)
      for (int64_t o = 0; o < cut.outputs; ++o)
        write_taps(to, g * to.group_channels(), i / cut.steps, i % cut.steps * to.slots() - o);
  }
  to.begin_group();
}

double work(const PackedWeights& w) {
  return static_cast<double>(w.steps() * w.table().group_strips[static_cast<int>(w.form())]);
}

int64_t scratch_bytes(const PackedWeights&) { return 0; }

}  // namespace

extern const BodyRules kRules = {refuse, pack, work, scratch_bytes};

}  // namespace openwork::depthwise
