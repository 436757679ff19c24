/** Parquet files that ask for more than they hold: one column of one page, of which every number can be chosen. */
import type { FileMetaData } from "hyparquet";
import { ByteWriter } from "hyparquet-writer/src/bytewriter.js";
import { writeMetadata } from "hyparquet-writer/src/metadata.js";
import { serializeTCompactProtocol } from "hyparquet-writer/src/thrift.js";

type Column = NonNullable<FileMetaData["row_groups"][number]["columns"][number]["meta_data"]>;

/** parquet's numbers of encodings. */
export const encodings = { plain: 0, rle: 3, delta: 5, lengths: 6, prefixes: 7, dictionary: 8, split: 9 };

export interface CraftedPage {
  /** Bytes as they stand in the file. */
  readonly body: ArrayLike<number>;
  /** Bytes that the page says it has when decompressed; default those of the body. */
  readonly size?: number;
  /** Values that the page says it has. */
  readonly values: number;
  /** One of `encodings`; default plain. */
  readonly encoding?: number;
  readonly codec?: Column["codec"];
  readonly type?: Column["type"];
  readonly convertedType?: FileMetaData["schema"][number]["converted_type"];
  /** Values may be null, so that runs of definition levels lie before them. */
  readonly optional?: boolean;
  /** Changes the footer, which tells one row group of `values` rows. */
  readonly footer?: (metadata: FileMetaData) => FileMetaData;
}

/** A file whose column "prompt" is this page. */
export function craftedParquet(page: CraftedPage): Uint8Array<ArrayBuffer> {
  const { body, size = body.length, values, encoding = encodings.plain, type = "BYTE_ARRAY" } = page;
  const writer = new ByteWriter();
  writer.appendBytes(Buffer.from("PAR1"));
  const start = writer.offset;
  const header = { field_1: values, field_2: encoding, field_3: encodings.rle, field_4: encodings.rle };
  serializeTCompactProtocol(writer, { field_1: 0, field_2: size, field_3: body.length, field_5: header });
  writer.appendBytes(Uint8Array.from(body));
  const bytes = BigInt(writer.offset - start);
  const column: Column = {
    type,
    encodings: ["PLAIN"],
    path_in_schema: ["prompt"],
    codec: page.codec ?? "UNCOMPRESSED",
    num_values: BigInt(values),
    total_uncompressed_size: bytes,
    total_compressed_size: bytes,
    data_page_offset: BigInt(start),
  };
  const metadata: FileMetaData = {
    version: 1,
    schema: [
      { name: "root", num_children: 1 },
      {
        name: "prompt",
        type,
        repetition_type: page.optional === true ? "OPTIONAL" : "REQUIRED",
        ...(page.convertedType === undefined ? {} : { converted_type: page.convertedType }),
      },
    ],
    num_rows: BigInt(values),
    row_groups: [
      { columns: [{ file_offset: 0n, meta_data: column }], total_byte_size: bytes, num_rows: BigInt(values) },
    ],
    metadata_length: 0,
  };
  writeMetadata(writer, page.footer?.(metadata) ?? metadata);
  writer.appendBytes(Buffer.from("PAR1"));
  return new Uint8Array(writer.getBytes());
}
