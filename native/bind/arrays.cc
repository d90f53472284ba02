#include "bind/arrays.h"

namespace openwork::bind {

namespace {

template <class T>
nb::object array_of(AlignedBuffer buffer, const std::vector<int64_t>& shape) {
  const std::vector<size_t> sizes(shape.begin(), shape.end());
  std::byte* data = buffer.release();
  const nb::capsule owner(data, [](void* p) noexcept { AlignedBuffer::free_aligned(p); });
  return nb::cast(nb::ndarray<nb::numpy, T, nb::c_contig>(data, sizes.size(), sizes.data(), owner));
}

}  // namespace

nb::object to_numpy(AlignedBuffer buffer, DType dtype, const std::vector<int64_t>& shape) {
  switch (dtype) {
    case DType::u8: return array_of<uint8_t>(std::move(buffer), shape);
    case DType::bf16: return array_of<uint16_t>(std::move(buffer), shape);
    case DType::i64: return array_of<int64_t>(std::move(buffer), shape);
    case DType::f32: break;
  }
  return array_of<float>(std::move(buffer), shape);
}

nb::object to_numpy(AlignedBuffer buffer, Stored type, const std::vector<int64_t>& shape) {
  switch (type) {
    case Stored::u8: return array_of<uint8_t>(std::move(buffer), shape);
    case Stored::s8: return array_of<int8_t>(std::move(buffer), shape);
    case Stored::bf16: return array_of<uint16_t>(std::move(buffer), shape);
    case Stored::f32: break;
  }
  return array_of<float>(std::move(buffer), shape);
}

}  // namespace openwork::bind
