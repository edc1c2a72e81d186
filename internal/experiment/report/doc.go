// Package report makes a page, and pictures for papers, of the results of an
// experiment.
//
// [Page] writes one HTML file that needs nothing else: plots are inline SVG,
// colours follow the reader's choice of light or dark, and every plot has its
// table. [Export] writes the same plots as SVG and PNG files. A plot is drawn on
// a canvas, of which there is one for SVG and one for pixels. Series differ by
// colour, marker and line, so that they survive printing in grey and the eyes
// of those who do not tell all colours apart (palette of Okabe and Ito).
// [Markdown] prints the results for documents, and [PutInto] and [Pictures] bring
// a document up to date.
//
// All is pure but for what is written to the writer of Page. Nothing is safe for concurrent use.
package report
