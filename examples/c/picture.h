/* picture.h - writes iteration counts as a PNG picture, without any library. */
#ifndef PICTURE_H
#define PICTURE_H

#include <stdint.h>
#include <stdio.h>

static uint32_t picture_crc(uint32_t crc, const uint8_t *bytes, size_t n)
{
    crc = ~crc;
    while (n--) {
        crc ^= *bytes++;
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    return ~crc;
}

static void picture_be32(uint8_t *to, uint32_t n)
{
    for (int i = 0; i < 4; i++) to[i] = (uint8_t)(n >> (24 - 8 * i));
}

static int picture_chunk(FILE *file, const char *kind, const uint8_t *bytes, uint32_t n)
{
    uint8_t head[8], tail[4];
    picture_be32(head, n);
    for (int i = 0; i < 4; i++) head[4 + i] = (uint8_t)kind[i];
    picture_be32(tail, picture_crc(picture_crc(0, head + 4, 4), bytes, n));
    return fwrite(head, 8, 1, file) == 1 && (!n || fwrite(bytes, n, 1, file) == 1) &&
           fwrite(tail, 4, 1, file) == 1;
}

/* A row is one stored block of the deflate format, so it may have at most 65,534 pixels. */
static int picture_rows(FILE *file, const uint16_t *counts, uint32_t size, uint16_t most, uint8_t *row)
{
    uint32_t a = 1, b = 0; /* Adler-32 */
    for (uint32_t y = 0; y < size; y++) {
        const uint32_t head = y == 0 ? 2 : 0, length = size + 1;
        uint32_t used = head + 5;
        row[0] = 0x78;
        row[1] = 0x01;
        row[head] = y + 1 == size;
        row[head + 1] = (uint8_t)length;
        row[head + 2] = (uint8_t)(length >> 8);
        row[head + 3] = (uint8_t)~length;
        row[head + 4] = (uint8_t)(~length >> 8);
        row[used++] = 0; /* no filter */
        for (uint32_t x = 0; x < size; x++) {
            const uint16_t n = counts[(size_t)y * size + x];
            row[used++] = n >= most ? 0 : (uint8_t)(1 + n % 255);
        }
        for (uint32_t i = head + 5; i < used; i++) {
            a = (a + row[i]) % 65521;
            b = (b + a) % 65521;
        }
        if (y + 1 == size) {
            picture_be32(row + used, b << 16 | a);
            used += 4;
        }
        if (!picture_chunk(file, "IDAT", row, used)) return 0;
    }
    return 1;
}

/* Writes size x size counts; `most` is black, the others go through a palette. `row` is scratch room
 * for size + 16 bytes. Returns 0 when the file cannot be written. */
static int picture_write(FILE *file, const uint16_t *counts, uint32_t size, uint16_t most, uint8_t *row)
{
    static const uint8_t magic[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
    uint8_t head[13] = {0}, palette[768] = {0};
    picture_be32(head, size);
    picture_be32(head + 4, size);
    head[8] = 8; /* bits */
    head[9] = 3; /* palette */
    for (int i = 1; i < 256; i++) { /* night blue, sky, white, amber, and back */
        static const uint8_t stops[6][3] = {{0, 7, 60},      {32, 107, 203}, {237, 255, 255},
                                            {255, 170, 0}, {90, 20, 10},   {0, 7, 60}};
        const int t = (i * 13 % 255) * 5, at = t / 255, part = t % 255;
        for (int c = 0; c < 3; c++)
            palette[3 * i + c] = (uint8_t)((stops[at][c] * (255 - part) + stops[at + 1][c] * part) / 255);
    }
    return fwrite(magic, 8, 1, file) == 1 && picture_chunk(file, "IHDR", head, 13) &&
           picture_chunk(file, "PLTE", palette, 768) && picture_rows(file, counts, size, most, row) &&
           picture_chunk(file, "IEND", NULL, 0);
}

#endif
