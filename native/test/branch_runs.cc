#include "test/branch_runs.h"

#include <algorithm>
#include <random>

#include "runtime/context.h"
#include "test/guarded.h"

namespace openwork::test {

std::shared_ptr<const Program> build(const KernelTable& table, const Build& steps, bool all) {
  Branches branches(table, 3);
  std::vector<int> outputs = steps(branches);
  if (all)
    for (int v = 1; v < static_cast<int>(branches.program->values().size()); ++v)
      if (std::count(outputs.begin(), outputs.end(), v) == 0) outputs.push_back(v);
  branches.program->finish({branches.x}, outputs);
  return branches.program;
}

namespace {

Bytes random_images(int64_t batch) {
  std::mt19937 rng(17);
  Bytes x(static_cast<size_t>(batch * kHeight * kWidth * kChannels));
  for (auto& byte : x) byte = static_cast<uint8_t>(rng());
  return x;
}

}  // namespace

std::vector<Bytes> run(const std::shared_ptr<const Program>& program, int threads, int64_t batch, size_t outputs) {
  const Bytes x = random_images(batch);
  const Guarded guarded(x.data(), x.size(), 0);
  Context context(program, threads, 2);
  const auto made = context.run({{DType::u8, {batch, kHeight, kWidth, kChannels}, guarded.data()}});
  std::vector<Bytes> found;
  for (size_t i = 0; i < outputs; ++i) {
    const auto* data = made[i].buffer.as<uint8_t>();
    found.emplace_back(data, data + made[i].buffer.bytes());
  }
  return found;
}

Bytes run_guarded(const Program& program, int64_t batch) {
  const auto plan = make_plan(program, {{batch}}, 1);
  const Bytes x = random_images(batch);
  std::vector<std::unique_ptr<Guarded>> memory;
  Buffers buffers;
  for (int v = 0; v < static_cast<int>(program.values().size()); ++v) {
    const int width = dtype_bytes(program.values()[static_cast<size_t>(v)].dtype);
    bool ahead = false;
    for (const Step& step : program.steps())
      for (const Read& read : step.reads) ahead = ahead || (read.ahead && program.home(read.value) == v);
    const auto bytes = static_cast<size_t>(plan->sizes.elements(v) * width);
    const size_t slack = ahead ? read_ahead(static_cast<size_t>(width)) : 0;
    memory.push_back(std::make_unique<Guarded>(v == program.inputs()[0] ? x.data() : nullptr, bytes, slack));
  }
  for (int v = 0; v < static_cast<int>(memory.size()); ++v) {
    const Home& home = program.home_of(v);
    buffers.values.push_back(memory[static_cast<size_t>(home.value)]->data() + home.offset);
  }
  const AlignedBuffer scratch(plan->scratch_stride);
  buffers.scratch = scratch.data();
  for (const Work& work : plan->work) work.run(buffers, {0, work.units, 0});
  const int y = program.outputs()[0];
  const auto* data = buffers.get<const uint8_t>(y);
  return {data, data + plan->sizes.elements(y) * dtype_bytes(program.values()[static_cast<size_t>(y)].dtype)};
}

}  // namespace openwork::test
