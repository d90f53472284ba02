// Convolutions of every instruction set, type and form of this machine against plain loops: the same bits.
#include <cmath>
#include <cstring>
#include <stdexcept>

#include "runtime/convolution/layer.h"
#include "test/convolution_problems.h"
#include "test/guarded.h"
#include "test/harness.h"
#include "test/plain_epilogue.h"
#include "test/tables.h"

namespace openwork {
namespace {

struct Problem {
  ConvGeometry g;
  Type type = Type::i8;
  unsigned zeros_in_16 = 0;  // of the weights
  int zero_point = 0;
  bool extreme = false;  // activations 0 or 255, weights -127 or 127
  bool relu = false, quantized = false, residual = false;
  unsigned seed = 0;
};

struct Data {
  std::vector<int> x;       // [pixels, channels]
  std::vector<int> weight;  // [n, taps, channels / groups]
  std::vector<float> scale, bias, residual;
};

constexpr float kInverseScale = 37.5f;
constexpr int kOutputZeroPoint = 119;

// Floats are small whole numbers, so that their sums are exact in any order.
int random_value(const Problem& p, std::mt19937& rng, bool weight) {
  if (p.type != Type::i8) return static_cast<int>(test::draw(rng, -6, 6));
  if (p.extreme) return weight ? (rng() % 2 ? 127 : -127) : (rng() % 2 ? 255 : 0);
  return static_cast<int>(weight ? test::draw(rng, -127, 127) : test::draw(rng, 0, 255));
}

Data make_data(const Problem& p) {
  std::mt19937 rng(p.seed);
  std::uniform_real_distribution<float> real(-1.0f, 1.0f);
  const ConvShape& s = p.g.shape;
  Data d;
  for (int64_t i = 0; i < p.g.pixels() * s.channels; ++i) d.x.push_back(random_value(p, rng, false));
  for (int64_t i = 0; i < s.n * s.taps() * (s.channels / s.groups); ++i)
    d.weight.push_back(rng() % 16 < p.zeros_in_16 ? 0 : random_value(p, rng, true));
  for (int64_t c = 0; c < s.n; ++c) {
    d.scale.push_back(1e-4f * (1.5f + real(rng)));
    d.bias.push_back(real(rng));
  }
  if (p.residual)
    for (int64_t i = 0; i < p.g.rows() * s.n; ++i) d.residual.push_back(real(rng));
  return d;
}

std::vector<uint8_t> encode(Type type, const std::vector<int>& values) {
  const auto size = static_cast<size_t>(element_bytes(type));
  std::vector<uint8_t> bytes(values.size() * size);
  for (size_t i = 0; i < values.size(); ++i) {
    const float real = static_cast<float>(values[i]);
    // A BF16 is the upper half of a binary32.
    if (type == Type::i8)
      bytes[i] = static_cast<uint8_t>(values[i]);
    else
      std::memcpy(&bytes[i * size], reinterpret_cast<const char*>(&real) + sizeof real - size, size);
  }
  return bytes;
}

// The sum of one output, over the pixels and channels that it sees.
int64_t plain_sum(const Problem& p, const Data& d, int64_t row, int64_t c) {
  const ConvGeometry& g = p.g;
  const ConvAxis &height = g.shape.height, &width = g.shape.width;
  const int64_t column = row % g.out_width, line = row / g.out_width % g.out_height, image = row / g.out_width / g.out_height;
  const int64_t each = g.shape.channels / g.shape.groups, first = c / (g.shape.n / g.shape.groups) * each;
  int64_t sum = 0;
  for (int64_t i = 0; i < height.kernel; ++i)
    for (int64_t j = 0; j < width.kernel; ++j) {
      const int64_t h = line * height.stride - height.pad_begin + i * height.dilation;
      const int64_t w = column * width.stride - width.pad_begin + j * width.dilation;
      if (h < 0 || h >= g.in_height || w < 0 || w >= g.in_width) continue;
      const int* x = &d.x[static_cast<size_t>(((image * g.in_height + h) * g.in_width + w) * g.shape.channels + first)];
      const int* weight = &d.weight[static_cast<size_t>(((c * height.kernel + i) * width.kernel + j) * each)];
      for (int64_t k = 0; k < each; ++k) sum += (x[k] - p.zero_point) * weight[k];
    }
  return sum;
}

LinearEpilogue epilogue_of(const Problem& p, const Data& d) {
  LinearEpilogue e;
  e.scale.assign(d.scale.begin(), d.scale.end());
  e.bias.assign(d.bias.begin(), d.bias.end());
  e.x_zero_point = p.zero_point;
  e.activation = p.relu ? Activation::relu : Activation::none;
  if (p.residual) e.residual = Stored::f32;
  e.output = p.quantized ? Stored::u8 : Stored::f32;
  if (p.quantized) e.inverse_scale.assign(d.scale.size(), kInverseScale);
  e.y_zero_point = kOutputZeroPoint;
  return e;
}

std::vector<float> plain_convolution(const Problem& p, const Data& d) {
  const LinearEpilogue e = epilogue_of(p, d);
  const test::PlainEpilogue plain(e);
  std::vector<float> y;
  for (int64_t row = 0; row < p.g.rows(); ++row)
    for (int64_t c = 0; c < p.g.shape.n; ++c) {
      const float residual = p.residual ? d.residual[static_cast<size_t>(row * p.g.shape.n + c)] : 0.0f;
      y.push_back(plain(static_cast<float>(plain_sum(p, d, row, c)), residual, c));
    }
  return y;
}

ConvAttributes attributes_of(const ConvShape& s) {
  return {{s.height.stride, s.width.stride},
          {s.height.dilation, s.width.dilation},
          {s.height.pad_begin, s.width.pad_begin, s.height.pad_end, s.width.pad_end}};
}

ConvLayer make_layer(const Problem& p, const Data& d, std::shared_ptr<const PackedWeights> weights) {
  return ConvLayer(std::move(weights), epilogue_of(p, d), attributes_of(p.g.shape));
}

// Whether y may lie where the residual does.
bool fits_in_place(const Problem& p) { return p.residual && !p.quantized; }

// Every buffer ends at an unreadable page, x behind its read-ahead. The last unit runs first.
std::vector<float> run_layer(const Problem& p, const Data& d, const ConvLayer& layer, int threads, bool in_place = false) {
  const ConvPlan plan = layer.plan(p.g.batch, p.g.in_height, p.g.in_width, threads);
  const auto bytes = encode(p.type, d.x);
  const size_t count = static_cast<size_t>(p.g.rows() * p.g.shape.n);
  const Guarded x(bytes.data(), bytes.size(), read_ahead(element_bytes(p.type)));
  const Guarded y(nullptr, count * (p.quantized ? 1 : sizeof(float)), 0);
  const Guarded residual(d.residual.data(), d.residual.size() * sizeof(float), 0);
  const Guarded scratch(nullptr, static_cast<size_t>(plan.scratch_bytes()), 0);
  uint8_t* const made = in_place ? residual.data() : y.data();
  const LinearBuffers buffers{x.data(), p.residual ? residual.data() : nullptr, made};
  for (int64_t unit = plan.partition.units(); unit-- > 0;)
    layer.run(plan, buffers, unit, reinterpret_cast<std::byte*>(scratch.data()));
  std::vector<float> out(count);
  for (size_t i = 0; i < count; ++i) out[i] = p.quantized ? made[i] : reinterpret_cast<const float*>(made)[i];
  return out;
}

bool holds(const Problem& p, const KernelTable& table, Form form, ConvRun run) {
  const ConvShape& s = p.g.shape;
  if (run != ConvRun::tap && s.width.dilation != 1) return false;
  if (form_info(form).bits == 2 && s.channels / s.groups % 8 != 0) return false;
  return refusal(weight_shape(s, run), p.type, form, table).empty();
}

std::string describe(const Problem& p, const PackedWeights& w) {
  return std::string(w.table().isa) + " " + type_name(p.type) + " " + form_info(w.form()).name +
         " " + run_name(run_of(w.shape())) + " " + test::describe(p.g) + ", zero point " + std::to_string(p.zero_point) + " seed " +
         std::to_string(p.seed);
}

void check_form(const Problem& p, const Data& d, const KernelTable& table, Form form, const std::vector<float>& expected) {
  const auto bytes = encode(p.type, d.weight);
  for (const ConvRun run : {ConvRun::tap, ConvRun::row, ConvRun::patch}) {
    if (!holds(p, table, form, run)) continue;
    const auto weights = PackedWeights::pack(weight_shape(p.g.shape, run), p.type, bytes.data(), form, table);
    const ConvLayer layer = make_layer(p, d, weights);
    for (const int threads : {1, 3}) {
      CHECK_SAY(test::same_bits(run_layer(p, d, layer, threads), expected), describe(p, *weights));
      if (fits_in_place(p))
        CHECK_SAY(test::same_bits(run_layer(p, d, layer, threads, true), expected), describe(p, *weights) + " in place");
    }
  }
}

void check_problem(const Problem& p) {
  const Data d = make_data(p);
  const auto expected = plain_convolution(p, d);
  for (const KernelTable* table : available_tables())
    for (int f = 0; f < kForms; ++f)
      if (const auto form = static_cast<Form>(f); test::is_own(*table, form)) check_form(p, d, *table, form, expected);
}

Problem random_problem(unsigned seed) {
  std::mt19937 rng(seed);
  Problem p{test::random_geometry(rng)};
  p.type = rng() % 2 ? Type::i8 : rng() % 2 ? Type::bf16 : Type::f32;
  p.zeros_in_16 = rng() % 2 ? static_cast<unsigned>(test::draw(rng, 4, 15)) : 0;
  // Some leave padding out: what an instruction set subtracts from activations.
  constexpr int kOften[] = {0, 128, 255};
  if (p.type == Type::i8) p.zero_point = rng() % 3 ? static_cast<int>(rng() % 256) : kOften[rng() % 3];
  p.extreme = rng() % 6 == 0;
  p.relu = rng() % 2;
  p.quantized = rng() % 2;
  p.residual = rng() % 2;
  p.seed = seed;
  return p;
}

TEST(convolution_equals_plain_loops_on_random_problems) {
  const unsigned problems = test::random_problems(200);
  for (unsigned seed = 0; seed < problems; ++seed) check_problem(random_problem(seed));
}

TEST(convolution_runs_layers_in_many_blocks) {
  const ConvAxis three{3, 1, 1, 1, 1}, seven{7, 2, 1, 3, 3}, alone{};
  for (const ConvShape& shape : {ConvShape{64, 3, 1, seven, seven}, ConvShape{96, 64, 1, three, three}, ConvShape{64, 64, 16, three, three},
                                 ConvShape{70, 70, 70, three, three}, ConvShape{32, 32, 32, {5, 2, 1, 2, 2}, {5, 2, 1, 2, 2}},
                                 ConvShape{40, 128, 1, alone, alone}, ConvShape{33, 24, 1, alone, {9, 1, 1, 4, 4}}}) {
    Problem p{make_geometry(shape, 1, shape.height.kernel == 1 ? 1 : 22, shape.height.kernel == 1 ? 300 : 21)};
    p.quantized = true;
    p.seed = static_cast<unsigned>(shape.channels);
    for (const int zero_point : {77, 0}) {
      p.zero_point = zero_point;
      check_problem(p);
    }
  }
}

TEST(convolution_partition_covers_the_output_once) {
  const KernelTable& table = *available_tables().back();
  for (const int64_t size : {1, 7, 30})
    for (const int64_t channels : {3, 64})
      for (const int threads : {1, 2, 7}) {
        const ConvShape shape{200, channels, 1, {3, 1, 1, 1, 1}, {3, 1, 1, 1, 1}};
        Problem p{make_geometry(shape, 3, size, size)};
        const Data d = make_data(p);
        const auto bytes = encode(p.type, d.weight);
        const auto weights = PackedWeights::pack(weight_shape(shape, channels == 3 ? ConvRun::patch : ConvRun::row), p.type, bytes.data(), Form::dense, table);
        const ConvPlan plan = make_layer(p, d, weights).plan(3, size, size, threads);
        int64_t covered = 0;
        for (int64_t unit = 0; unit < plan.partition.units(); ++unit) {
          const Block b = plan.partition.block(unit);
          CHECK(b.row_begin < b.row_end && b.group_begin < b.group_end);
          covered += (b.row_end - b.row_begin) * (b.group_end - b.group_begin);
        }
        CHECK_SAY(covered == p.g.rows() * weights->groups(), test::describe(p.g));
      }
}

std::vector<Bands> bands_of(const ConvShape& shape, int64_t size, ConvRun run, int64_t images = 1) {
  const Indirection indirection(make_geometry(shape, images, size, size), run, 1, 0);
  return find_bands(indirection, {images * size * size, 1});
}

TEST(rows_at_a_border_need_fewer_runs) {
  const ConvShape three{16, 64, 1, {3, 1, 1, 1, 1}, {3, 1, 1, 1, 1}}, five{16, 64, 1, {5, 1, 1, 2, 2}, {5, 1, 1, 2, 2}};
  CHECK(bands_of(three, 7, ConvRun::row) == (std::vector<Bands>{{{7, 1, 3}, {42, 0, 3}, {49, 0, 2}}}));
  CHECK(bands_of(three, 7, ConvRun::tap) == (std::vector<Bands>{{{7, 3, 9}, {42, 0, 9}, {49, 0, 6}}}));
  CHECK(bands_of(five, 7, ConvRun::row) == (std::vector<Bands>{{{7, 2, 5}, {14, 1, 5}, {35, 0, 5}, {42, 0, 4}, {49, 0, 3}}}));
  CHECK(bands_of(three, 6, ConvRun::row, 2) ==
        (std::vector<Bands>{{{6, 1, 3}, {30, 0, 3}, {36, 0, 2}, {42, 1, 3}, {66, 0, 3}, {72, 0, 2}}}));
  // Copies of all taps are one run; an image without padding needs all of them.
  CHECK(bands_of(three, 7, ConvRun::patch).empty());
  CHECK(find_bands(Indirection(make_geometry({16, 64, 1, {3, 1, 1, 0, 0}, {3, 1, 1, 0, 0}}, 1, 9, 9), ConvRun::row, 1, 0), {49, 1}).empty());
}

TEST(bands_of_few_rows_join_their_neighbours) {
  const ConvShape three{16, 64, 1, {3, 1, 1, 1, 1}, {3, 1, 1, 1, 1}};
  CHECK(bands_of(three, 2, ConvRun::row).empty());
  // A block of a convolution ends anywhere: four pixels of a border join the row beside them.
  const Indirection indirection(make_geometry(three, 1, 7, 7), ConvRun::row, 1, 0);
  LinearPartition two{49, 1};
  two.row_blocks = 16;
  const auto found = find_bands(indirection, two);
  CHECK(found.size() == 16 && found[0] == (Bands{{3, 1, 3}}) && found[2] == (Bands{{9, 0, 3}}));
}

TEST(convolution_refuses_runs_of_taps_with_a_dilation) {
  const ConvShape shape{16, 4, 1, {1, 1, 1, 0, 0}, {3, 1, 2, 0, 0}};
  Problem p{make_geometry(shape, 1, 1, 9)};
  const Data d = make_data(p);
  const auto bytes = encode(p.type, d.weight);
  const auto weights = PackedWeights::pack(weight_shape(shape, ConvRun::row), p.type, bytes.data(), Form::dense, choose_table("scalar"));
  std::string message;
  try {
    make_layer(p, d, weights);
  } catch (const std::invalid_argument& e) {
    message = e.what();
  }
  CHECK(message ==
        "Expected weights packed for single taps, because the taps of a kernel with dilation 2 do not lie side by side; found "
        "weights packed for runs of several.");
}

}  // namespace
}  // namespace openwork
