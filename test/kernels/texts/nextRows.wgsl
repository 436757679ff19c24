// nextRows: the only one.

struct Uniforms { T: u32, window: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> chosen: array<u32>;
@group(0) @binding(2) var<storage, read_write> tokens: array<u32>;
@group(0) @binding(3) var<storage, read_write> positions: array<u32>;
@group(0) @binding(4) var<storage, read_write> ranges: array<u32>;
@group(0) @binding(5) var<storage, read_write> windowRanges: array<u32>;
@group(0) @binding(6) var<storage, read_write> cacheRows: array<u32>;
@group(0) @binding(7) var<storage, read_write> draws: array<u32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let row = id.x;
  if (row >= u.T || cacheRows[row] == 4294967295u) { return; }
  let position = positions[row] + 1u;
  let own = cacheRows[row] + 1u;
  tokens[row] = chosen[row];
  positions[row] = position;
  cacheRows[row] = own;
  ranges[4u * row + 3u] = own + 1u;
  windowRanges[4u * row + 2u] = own - min(position, u.window - 1u);
  windowRanges[4u * row + 3u] = own + 1u;
  draws[4u * row + 2u] = position + 1u;
}
