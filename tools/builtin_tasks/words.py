"""Names and places that several families share."""


def _listed(text: str, between: str = " ") -> tuple[str, ...]:
    return tuple(text.replace("\n", " ").strip().split(between))


FIRST = _listed(
    """
Adam Aisha Alan Alice Amina Amir Ana Andrei Anna Arjun Astrid Ben Bianca Bruno Carla Carlos Chen Clara Daniel David
Diana Diego Elena Ella Emma Eric Eva Farid Fatima Felix Fiona Gloria Grace Greta Hana Hannah Hassan Helen Henry Hugo
Ibrahim Ines Ingrid Isaac Ivan Jack Jana Jasmine Javier Jonas Julia Kamal Karen Karim Kate Kenji Lara Laura Layla
Leo Lina Lucas Lucy Magnus Maria Mark Marta Martin Maya Mei Mia Miguel Nadia Nathan Nina Noah Nora Oliver Olga Omar
Oscar Paula Peter Pablo Priya Rafael Ravi Rita Robert Rosa Ruth Samir Sara Simon Sofia Stefan Tara Teresa Thomas Tom
Vera Victor Yara Yusuf
"""
)

LAST = _listed(
    """
Abbott Ahmed Alvarez Andersen Baker Bauer Becker Bell Bennett Berg Bianchi Brown Carter Castro Chan Clark Cohen Cole
Cooper Costa Cruz Dahl Davies Diaz Dubois Evans Farah Ferrari Fischer Fleming Fontaine Foster Garcia Gomez Green
Gupta Haddad Hall Hansen Hassan Hill Hoffman Horvat Hughes Ito Jansen Jensen Jones Kaplan Kelly Khan Kim King Klein
Kumar Lambert Larsen Lee Lopez Lund Malik Marino Marsh Mendez Meyer Miller Moore Moreau Morris Murphy Nagy Nakamura
Nguyen Novak Okafor Olsen Ortiz Osman Park Patel Pereira Petrov Popescu Price Ramos Reed Reyes Rossi Russo Sanchez
Santos Sato Schmidt Shah Silva Singh Smith Sousa Stone Suzuki Tanaka Taylor Torres Turner Usman Varga Wagner Walker
Weber White Wilson Wong Wood Young
"""
)

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

CITIES = _listed(
    """
Aberdeen, Adelaide, Amsterdam, Ankara, Antwerp, Athens, Atlanta, Austin, Bangkok, Barcelona, Basel, Belfast,
Belgrade, Bergen, Berlin, Bilbao, Bologna, Bordeaux, Boston, Bremen, Bristol, Brussels, Bucharest, Budapest, Cairo,
Cambridge, Cardiff, Casablanca, Chennai, Chicago, Cologne, Copenhagen, Cork, Dakar, Dallas, Delhi, Denver, Detroit,
Dresden, Dublin, Durban, Edinburgh, Florence, Frankfurt, Geneva, Genoa, Ghent, Glasgow, Granada, Hamburg, Hanoi,
Havana, Helsinki, Houston, Istanbul, Jakarta, Johannesburg, Karachi, Kingston, Kolkata, Krakow, Kyoto, Lagos, Leeds,
Leipzig, Lima, Lisbon, Liverpool, London, Lyon, Madrid, Malaga, Manchester, Manila, Marseille, Melbourne, Miami,
Milan, Minsk, Montreal, Moscow, Mumbai, Munich, Nairobi, Nantes, Naples, New York, Nice, Osaka, Oslo, Ottawa,
Oxford, Palermo, Paris, Perth, Philadelphia, Porto, Portland, Prague, Quebec, Quito, Riga, Rome, Rotterdam,
Salzburg, San Diego, Santiago, Sarajevo, Seattle, Seoul, Seville, Shanghai, Singapore, Sofia, Stockholm, Stuttgart,
Sydney, Tallinn, Tokyo, Toronto, Toulouse, Tunis, Turin, Utrecht, Valencia, Vancouver, Venice, Vienna, Vilnius,
Warsaw, Wellington, York, Zagreb, Zurich
""",
    between=", ",
)
