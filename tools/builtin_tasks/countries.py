"""Countries, their capitals and continents, as facts; "" where the fact is disputed, double or about to change."""

PARTS_OF_THE_WORLD = {
    "AF": "Africa",
    "AS": "Asia",
    "EU": "Europe",
    "NA": "North America",
    "OC": "Oceania",
    "SA": "South America",
}

_BY_CONTINENT = {
    "EU": """
Albania: Tirana; Andorra: Andorra la Vella; Austria: Vienna; Belarus: Minsk; Belgium: Brussels;
Bosnia and Herzegovina: Sarajevo; Bulgaria: Sofia; Croatia: Zagreb; the Czech Republic: Prague; Denmark: Copenhagen;
Estonia: Tallinn; Finland: Helsinki; France: Paris; Germany: Berlin; Greece: Athens; Hungary: Budapest;
Iceland: Reykjavik; Ireland: Dublin; Italy: Rome; Latvia: Riga; Liechtenstein: Vaduz; Lithuania: Vilnius; Luxembourg: ;
Malta: Valletta; Moldova: Chisinau; Monaco: ; Montenegro: Podgorica; the Netherlands: Amsterdam;
North Macedonia: Skopje; Norway: Oslo; Poland: Warsaw; Portugal: Lisbon; Romania: Bucharest; San Marino: ;
Serbia: Belgrade; Slovakia: Bratislava; Slovenia: Ljubljana; Spain: Madrid; Sweden: Stockholm; Switzerland: Bern;
Ukraine: Kyiv; the United Kingdom: London""",
    "AS": """
Afghanistan: Kabul; Bahrain: Manama; Bangladesh: Dhaka; Bhutan: Thimphu; Brunei: Bandar Seri Begawan;
Cambodia: Phnom Penh; China: Beijing; India: New Delhi; Iran: Tehran; Iraq: Baghdad; Israel: ; Japan: Tokyo;
Jordan: Amman; Kuwait: Kuwait City; Kyrgyzstan: Bishkek; Laos: Vientiane; Lebanon: Beirut; Malaysia: Kuala Lumpur;
the Maldives: Male; Mongolia: Ulaanbaatar; Myanmar: Naypyidaw; Nepal: Kathmandu; North Korea: Pyongyang; Oman: Muscat;
Pakistan: Islamabad; the Philippines: Manila; Qatar: Doha; Saudi Arabia: Riyadh; Singapore: ; South Korea: Seoul;
Sri Lanka: ; Syria: Damascus; Tajikistan: Dushanbe; Thailand: Bangkok; Timor-Leste: Dili; Turkmenistan: Ashgabat;
the United Arab Emirates: Abu Dhabi; Uzbekistan: Tashkent; Vietnam: Hanoi; Yemen: """,
    "AF": """
Algeria: Algiers; Angola: Luanda; Benin: Porto-Novo; Botswana: Gaborone; Burkina Faso: Ouagadougou; Burundi: ;
Cameroon: Yaounde; Cape Verde: Praia; the Central African Republic: Bangui; Chad: N'Djamena; the Comoros: Moroni;
the Democratic Republic of the Congo: Kinshasa; Djibouti: ; Egypt: Cairo; Equatorial Guinea: ; Eritrea: Asmara;
Eswatini: ; Ethiopia: Addis Ababa; Gabon: Libreville; the Gambia: Banjul; Ghana: Accra; Guinea: Conakry;
Guinea-Bissau: Bissau; Ivory Coast: Yamoussoukro; Kenya: Nairobi; Lesotho: Maseru; Liberia: Monrovia; Libya: Tripoli;
Madagascar: Antananarivo; Malawi: Lilongwe; Mali: Bamako; Mauritania: Nouakchott; Mauritius: Port Louis;
Morocco: Rabat; Mozambique: Maputo; Namibia: Windhoek; Niger: Niamey; Nigeria: Abuja;
the Republic of the Congo: Brazzaville; Rwanda: Kigali; Senegal: Dakar; the Seychelles: Victoria;
Sierra Leone: Freetown; Somalia: Mogadishu; South Africa: ; South Sudan: Juba; Sudan: Khartoum; Tanzania: Dodoma;
Togo: Lome; Tunisia: Tunis; Uganda: Kampala; Zambia: Lusaka; Zimbabwe: Harare""",
    "NA": """
Antigua and Barbuda: St. John's; the Bahamas: Nassau; Barbados: Bridgetown; Belize: Belmopan; Canada: Ottawa;
Costa Rica: San Jose; Cuba: Havana; Dominica: Roseau; the Dominican Republic: Santo Domingo; El Salvador: San Salvador;
Grenada: St. George's; Guatemala: Guatemala City; Haiti: Port-au-Prince; Honduras: Tegucigalpa; Jamaica: Kingston;
Mexico: Mexico City; Nicaragua: Managua; Panama: Panama City; Saint Kitts and Nevis: Basseterre; Saint Lucia: Castries;
Saint Vincent and the Grenadines: Kingstown; the United States: Washington, D.C.""",
    "SA": """
Argentina: Buenos Aires; Bolivia: ; Brazil: Brasilia; Chile: Santiago; Colombia: Bogota; Ecuador: Quito;
Guyana: Georgetown; Paraguay: Asuncion; Peru: Lima; Suriname: Paramaribo; Uruguay: Montevideo; Venezuela: Caracas""",
    "OC": """
Australia: Canberra; Fiji: Suva; Kiribati: ; the Marshall Islands: Majuro; Micronesia: Palikir; Nauru: ;
New Zealand: Wellington; Palau: Ngerulmud; Papua New Guinea: Port Moresby; Samoa: Apia; the Solomon Islands: Honiara;
Tonga: Nuku'alofa; Tuvalu: Funafuti; Vanuatu: Port Vila""",
    "": """
Armenia: Yerevan; Azerbaijan: Baku; Cyprus: Nicosia; Georgia: Tbilisi; Kazakhstan: Astana; Russia: Moscow;
Trinidad and Tobago: Port of Spain; Turkey: Ankara""",
}

COUNTRIES = tuple(
    (name.strip(), capital.strip(), continent)
    for continent, lines in _BY_CONTINENT.items()
    for name, capital in (pair.split(":") for pair in lines.replace("\n", " ").split(";"))
)
